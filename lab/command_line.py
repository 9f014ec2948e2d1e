"""The command lines of script.py and evaluate.py, checked and rewritten for Hydra."""

import functools
import os
import re
from argparse import Namespace
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lab import files, provenance, ranks, record, resume, schema
from lab.errors import ConfigError

RESUMED = "resumed"  # the name of the config of a run that resume=FOLDER names

# Keys whose values are names or paths, which are taken as they are typed: Hydra's grammar would
# refuse =, ~, quotes, parentheses and accents in them.
NAMES = ("name", "images", "run", "data_dir", "init_from", "export")
NAMES += ("hydra.run.dir", "hydra.sweep.dir")
QUOTED = re.compile(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""")  # as Hydra quotes
LIST_ITEM = re.compile(rf"\s*({QUOTED.pattern}|[^,]*?)\s*(,|$)")
FUNCTION = re.compile(r"(choice|shuffle|sort|tag)\(.*\)")  # of Hydra, for sweeps

# Keys that have an effect with --multirun alone, and those that have one without it.
OF_A_SWEEP = re.compile(r"(name|sweep|fail_fast|hydra[./](sweep|sweeper|launcher)([./].*)?)")
OF_A_RUN = re.compile(r"hydra\.run(\.dir)?")
SET_BY_RESUME = re.compile(r"hydra\.(run(\.dir)?|output_subdir)")
ONE_RUN = "torchrun starts one run, and hydra/launcher=local or slurm the jobs of a sweep"
EMPTY_FOLDER = re.compile(r"[+]*hydra\.(run|sweep)\.dir=(|null|\s*''|\s*\"\")\s*")


def for_script(argv: list[str]) -> list[str]:
    """`sys.argv` for Hydra: names are quoted, and `resume=FOLDER` is replaced by the config of that
    run and its folder.

    The folder may come from a stranger. Its config is checked, and Hydra gets what was checked; the
    folder itself is never a place in which Hydra looks for configs. Raises ConfigError for what
    Hydra would ignore.
    """
    provenance.remember_command(argv)
    script, *arguments = argv
    args, flags = _parsed(arguments)
    is_resumed = any(word.startswith("resume=") for word in args.overrides)
    if is_resumed:
        _refuse_sweep(args, "resume=FOLDER resumes a single run")
    if ranks.current().are_several:
        _refuse_sweep(args, ONE_RUN)
    _refuse_ignored(args)
    words = args.overrides
    settings, words = _resumed(words) if is_resumed else ([], words)
    return [script, *flags, *settings, *(_literal(word, _is_sweep(args)) for word in words)]


def for_evaluate(argv: list[str]) -> list[str]:
    """`sys.argv` for Hydra, with names quoted: those of a sweep's folders contain = and ,."""
    script, *arguments = argv
    args, flags = _parsed(arguments)
    _refuse_sweep(args, "evaluate.py evaluates a single run")
    for word in args.overrides:
        if word[0] in "+~" and not _key(word).startswith("hydra"):
            raise ConfigError(
                f"{word} has no effect: the config of a run is that of its folder. evaluate.py "
                "itself takes run=, images=, dataset=, device=, data_dir= and trust=."
            )
    return [script, *flags, *(_literal(word, False) for word in args.overrides)]


def quoted(text: str | Path) -> str:
    """A name as a value that Hydra takes literally. Raises ConfigError if that is impossible."""
    if "${" in str(text):
        raise ConfigError(f"{text} has ${{ in its name, which Hydra would interpolate: rename it.")
    return escaped(str(text))


def escaped(text: str) -> str:
    """A text as a quoted value: Hydra changes nothing in it but interpolations."""
    # Within quotes, only quotes and the backslashes before them have to be escaped.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def is_of_a_sweep(override: str) -> bool:
    """Whether an override has an effect in a sweep alone."""
    return bool(OF_A_SWEEP.fullmatch(_key(override)))


def _parsed(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """The arguments as Hydra parses them, but in any order, and those that are flags."""
    args, unknown = get_args_parser().parse_known_intermixed_args(arguments)
    if unknown:
        flag = unknown[0]
        name, _, value = flag.lstrip("-").partition("=")
        value = value or "".join(arguments[arguments.index(flag) + 1 :][:1])
        if re.sub("[-_]", "", name).lower() in ("m", "multirun", "sweep"):
            raise ConfigError(f"{flag} is not an option: --multirun, or -m, starts a sweep.")
        value = "…" if not value or "=" in value else value  # the next word is an override
        raise ConfigError(
            f"{flag} is not an option: write {name}={value} to set a value. "
            "--help lists all values, --hydra-help the options."
        )
    return args, [word for word in arguments if word not in args.overrides]


def _modes(args: Namespace) -> list[str]:
    return [word for word in args.overrides if _key(word) in ("hydra", "hydra.mode")]


def _is_sweep(args: Namespace) -> bool:
    return args.multirun or any("MULTIRUN" in word.upper() for word in _modes(args))


def _refuse_sweep(args: Namespace, why: str) -> None:
    """Raises ConfigError, with the reason `why`, for whatever could make it a sweep."""
    if args.multirun or _modes(args):
        raise ConfigError(f"{why}: leave --multirun and hydra.mode out.")


def _refuse_ignored(args: Namespace) -> None:
    """Raises ConfigError for an override that would have no effect in this command."""
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        return
    for word in args.overrides:
        if ".yaml" in word and _key(word) in _groups():
            key, _, value = word.partition("=")
            raise ConfigError(f"{word} names a file: write {key}={Path(value).stem}.")
        if re.fullmatch(r"hydra\.(launcher|sweeper)=\w+", word):
            raise ConfigError(f"{word} chooses no option: write {word.replace('.', '/', 1)}.")
        if re.match(r"sweep=.*,", word):
            raise ConfigError(f"{word} names several recipes: start a sweep for each.")
        if _key(word) == "tuned" and not word.startswith("~"):
            raise ConfigError(
                f"{word} is not allowed: its option follows from dataset, model and optimizer. "
                "Leave it out; ~tuned uses none."
            )
        if word.startswith("~") or word.endswith("=null"):
            continue
        if _is_sweep(args) and OF_A_RUN.fullmatch(_key(word)):
            raise ConfigError(
                f"{word} is the folder of a single run: name a sweep by name=NAME, which is a "
                "folder in runs/."
            )
        if _is_sweep(args) or not is_of_a_sweep(word):
            continue
        remedy = "add --multirun, or leave it out"
        if _key(word) == "name":
            remedy = "add --multirun, or name the folder of this run by hydra.run.dir=FOLDER"
        raise ConfigError(f"{word} has an effect only in a sweep: {remedy}.")


def _resumed(words: list[str]) -> tuple[list[str], list[str]]:
    """Arguments by which Hydra resumes a run, and the other overrides. The run's config is stored
    for Hydra."""
    folders = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    others = [word for word in words if not word.startswith(("resume=", "trust="))]
    if len(folders) > 1 or not folders[0]:
        raise ConfigError("resume=FOLDER resumes one run: give one folder.")
    for word in others:
        if _key(word) in _groups():
            raise ConfigError(
                f"{word} would make it another run: a resumed one keeps its {_key(word)}. Only "
                "single values can be changed, like epochs=20 or optimizer.lr=0.001."
            )
        if SET_BY_RESUME.fullmatch(_key(word)):
            raise ConfigError(
                f"{word} is not allowed beside resume=FOLDER: a resumed run continues in its own "
                "folder. To continue it elsewhere, copy the folder and resume the copy."
            )
    folder = files.located(folders[0])
    for word in words:
        if word.startswith("trust=") and word not in ("trust=true", "trust=false"):
            raise ConfigError(f"{word} is not allowed: it must be true or false.")
    is_trusted = "trust=true" in words
    config, _ = record.read_run(folder, is_trusted)
    record.check_writable(folder)
    if all(_key(word) != "data_dir" for word in others) and not is_trusted:
        config["data_dir"] = resume.data_dir(config["data_dir"])
    ConfigStore.instance().store(name=RESUMED, node=schema.typed(config))
    ours = [f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null"]
    ours += ["hydra/job_logging=practical", "hydra/help=practical"]
    return ["--config-name", RESUMED, *ours], others


@functools.cache  # it reads a file, and is asked for each word
def _groups() -> list[str]:
    defaults = OmegaConf.load(provenance.PROJECT / "config/config.yaml").defaults
    return [group for entry in defaults if isinstance(entry, DictConfig) for group in entry]


def _literal(word: str, is_sweep: bool) -> str:
    """An override of NAMES, its value quoted so that Hydra takes it literally.

    null, what is quoted already, interpolations and, in a sweep, several values keep their meaning.
    """
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if EMPTY_FOLDER.fullmatch(word):
        raise ConfigError(f"{word} is not allowed: it must name a folder, as {key}=runs/mine does.")
    if name in NAMES and equals and not value.strip():
        raise ConfigError(f"{word} is empty: give a value, or leave it out.")
    if name not in NAMES or not equals or value == "null":
        return word
    if name == "images":
        if value.startswith("[") and value.endswith("]"):
            return f"{key}=[{','.join(map(_quoted_once, _items(value[1:-1])))}]"
        if "," not in value or os.path.exists(value):
            return f"{key}={_quoted_once(value)}"
        return f"{key}=[{','.join(map(_quoted_once, _items(value)))}]"
    if name == "run":
        return f"{key}={quoted(value)}"
    if is_sweep and FUNCTION.fullmatch(value):
        return word
    values = _items(value) if is_sweep else [value]
    if name.startswith("hydra."):  # the others are expanded where they are used
        values = list(map(os.path.expanduser, values))
    return f"{key}={','.join(v if QUOTED.fullmatch(v) else escaped(v) for v in values)}"


def _items(text: str) -> list[str]:
    """The parts of a list, between commas that are not within quotes."""
    items = [match[1] for match in LIST_ITEM.finditer(text)]
    return [item for item in items if item]


def _quoted_once(item: str) -> str:
    return item if QUOTED.fullmatch(item) else quoted(item)


def _key(override: str) -> str:
    return re.split("[=@]", override.lstrip("+~"))[0]


def for_python(overrides: list[str], folder: str | Path | None) -> tuple[str, list[str]]:
    """The name of the config, and the overrides for Hydra, of a run that Python starts.

    Raises ConfigError for flags, for a sweep, and for a folder given twice.
    """
    if flags := [word for word in overrides if word.startswith("-")]:
        raise ConfigError(f"{flags[0]} is a flag of the command line: give overrides alone.")
    if folder is not None:
        if any(_key(word) in ("resume", "hydra.run.dir") for word in overrides):
            raise ConfigError(f"folder={folder} is a second folder for the run: give a single one.")
        overrides = [*overrides, f"hydra.run.dir={quoted(Path(folder).expanduser())}"]
    _refuse_sweep(_parsed(overrides)[0], "from Python, one run is started at a time")
    _, *words = for_script(["script.train", *overrides])
    args = get_args_parser().parse_args(words)
    return args.config_name or "config", args.overrides
