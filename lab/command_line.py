"""The command lines of script.py and evaluate.py, checked and rewritten for Hydra."""

import functools
import os
import re
from argparse import Namespace
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lab import files, newest, provenance, ranks, record, resume, schema, tracker_settings
from lab.errors import ConfigError
from lab.overrides import key_of, literal, quoted

RESUMED = "resumed"  # the name of the config of a run that resume=FOLDER names

# Keys that have an effect with --multirun alone, and those that have one without it.
OF_A_SWEEP = re.compile(r"(name|sweep|fail_fast|trial|hydra[./](sweep|sweeper|launcher)([./].*)?)")
OF_A_RUN = re.compile(r"hydra\.run(\.dir)?")
SET_BY_RESUME = re.compile(r"hydra\.(run(\.dir)?|output_subdir)")
ONE_RUN = "torchrun starts one run, and hydra/launcher=local or slurm the jobs of a sweep"


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
    return [script, *flags, *settings, *(literal(word, _is_sweep(args)) for word in words)]


def for_evaluate(argv: list[str]) -> list[str]:
    """`sys.argv` for Hydra, with names quoted: those of a sweep's folders contain = and ,."""
    script, *arguments = argv
    args, flags = _parsed(arguments)
    _refuse_sweep(args, "evaluate.py evaluates a single run")
    for word in args.overrides:
        if word in _keys_of_evaluate() and not os.path.isdir(files.located(word)):
            raise ConfigError(f"{word} has no value: write {word}=VALUE.")
    words = [f"run={word}" if _is_folder(word) else word for word in args.overrides]
    folders = [word for word in words if key_of(word) == "run"]
    if len(folders) > 1:
        raise ConfigError(
            f"{folders[1].removeprefix('run=')} is a second run folder: give one. Give pictures "
            "with images=[a.png,b.png]."
        )
    keys = [key_of(word) for word in words]
    for key in (key for key in _keys_of_evaluate() if keys.count(key) > 1):
        raise ConfigError(
            f"{key}= is given {keys.count(key)} times: give it once. Give several pictures with "
            "images=[a.png,b.png]."
        )
    for word in words:
        is_added = word.startswith(("+", "~")) and not key_of(word).startswith("hydra")
        if is_added or key_of(word) in set(_groups()) - set(_keys_of_evaluate()):
            raise ConfigError(
                f"{word} has no effect: the config of a run is that of its folder. evaluate.py "
                f"itself takes {'=, '.join(_keys_of_evaluate())}=."
            )
    if folders == [f"run={newest.LAST}"]:
        found = newest.run_folder(newest.LAST)
        print(f"last is {record.shown(found)}")
        words[words.index(folders[0])] = f"run={found}"
    return [script, *flags, *(literal(word, False) for word in words)]


def _is_folder(word: str) -> bool:
    """Whether an argument of evaluate.py is the folder itself, without run=. The folder of a job of
    a sweep has = in its name."""
    if "=" not in word:
        return not word.startswith(("+", "~")) or word.startswith("~/")
    own = re.split("[./]", key_of(word))[0] in (*_keys_of_evaluate(), "hydra")
    return not own and os.path.isdir(files.located(word))


@functools.cache
def _keys_of_evaluate() -> list[str]:
    config = OmegaConf.load(provenance.PROJECT / "config/evaluate.yaml")
    return [str(key) for key in config if key not in ("defaults", "hydra")] + ["dataset"]


def is_of_a_sweep(override: str) -> bool:
    """Whether an override has an effect in a sweep alone."""
    return bool(OF_A_SWEEP.fullmatch(key_of(override)))


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
    return [word for word in args.overrides if key_of(word) in ("hydra", "hydra.mode")]


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
        if ".yaml" in word and key_of(word) in _groups():
            key, _, value = word.partition("=")
            raise ConfigError(f"{word} names a file: write {key}={Path(value).stem}.")
        if re.fullmatch(r"hydra\.(launcher|sweeper)=\w+", word):
            raise ConfigError(f"{word} chooses no option: write {word.replace('.', '/', 1)}.")
        if re.match(r"sweep=.*,", word):
            raise ConfigError(f"{word} names several recipes: start a sweep for each.")
        if key_of(word) == "tuned" and not word.startswith("~"):
            raise ConfigError(
                f"{word} is not allowed: its option follows from dataset, model and optimizer. "
                "Leave it out; ~tuned uses none."
            )
        if word.startswith("~") or word.endswith("=null"):
            continue
        if _is_sweep(args) and OF_A_RUN.fullmatch(key_of(word)):
            raise ConfigError(
                f"{word} is the folder of a single run: name a sweep with name=NAME, which is a "
                "folder in runs/."
            )
        if _is_sweep(args) or not is_of_a_sweep(word):
            continue
        remedy = "add --multirun, or leave it out"
        if key_of(word) == "name":
            remedy = "add --multirun, or name the folder of this run with hydra.run.dir=FOLDER"
        raise ConfigError(f"{word} has an effect only in a sweep: {remedy}.")


def _resumed(words: list[str]) -> tuple[list[str], list[str]]:
    """Arguments by which Hydra resumes a run, and the other overrides. The run's config is stored
    for Hydra."""
    folders = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    others = [word for word in words if not word.startswith(("resume=", "trust="))]
    if len(folders) > 1 or not folders[0]:
        raise ConfigError("resume=FOLDER resumes one run: give one folder.")
    for word in others:
        if key_of(word) in _groups() and not word.startswith("logger="):
            raise ConfigError(
                f"{word} would make it another run: a resumed one keeps its {key_of(word)}. Only "
                "single values can be changed, like epochs=20 or optimizer.lr=0.001."
            )
        if SET_BY_RESUME.fullmatch(key_of(word)):
            raise ConfigError(
                f"{word} is not allowed with resume=FOLDER: a resumed run continues in its own "
                "folder. To continue it elsewhere, copy the folder and resume the copy."
            )
    folder = newest.run_folder(folders[0])
    for word in words:
        if word.startswith("trust=") and word not in ("trust=true", "trust=false"):
            raise ConfigError(f"{word} is not allowed: it must be true or false.")
    is_trusted = "trust=true" in words
    config, _ = record.read_run(folder, is_trusted)
    record.check_writable(folder)
    config["logger"], others = tracker_settings.resumed(folder, others, is_trusted)
    if all(key_of(word) != "data_dir" for word in others) and not is_trusted:
        config["data_dir"] = resume.data_dir(config["data_dir"])
    ConfigStore.instance().store(name=RESUMED, node=schema.typed(config))
    ours = [f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null"]
    ours += ["hydra/job_logging=practical", "hydra/help=practical"]
    return ["--config-name", RESUMED, *ours], others


@functools.cache  # it reads a file, and is asked for each word
def _groups() -> list[str]:
    defaults = OmegaConf.load(provenance.PROJECT / "config/config.yaml").defaults
    return [group for entry in defaults if isinstance(entry, DictConfig) for group in entry]


def for_python(overrides: list[str], folder: str | Path | None) -> tuple[str, list[str]]:
    """The name of the config, and the overrides for Hydra, of a run that Python starts.

    Raises ConfigError for flags, for a sweep, and for a folder given twice.
    """
    if flags := [word for word in overrides if word.startswith("-")]:
        raise ConfigError(f"{flags[0]} is a flag of the command line: give overrides alone.")
    if folder is not None:
        if any(key_of(word) in ("resume", "hydra.run.dir") for word in overrides):
            raise ConfigError(f"folder={folder} is a second folder for the run: give a single one.")
        overrides = [*overrides, f"hydra.run.dir={quoted(Path(folder).expanduser())}"]
    _refuse_sweep(_parsed(overrides)[0], "from Python, one run is started at a time")
    _, *words = for_script(["script.train", *overrides])
    args = get_args_parser().parse_args(words)
    return args.config_name or "config", args.overrides
