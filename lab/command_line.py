"""The command lines of script.py and evaluate.py, rewritten for Hydra."""

import re
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lab import provenance, record, schema
from lab.errors import ConfigError


def for_script(argv: list[str]) -> list[str]:
    """`sys.argv` with `resume=FOLDER` replaced by the config of that run and its folder.

    The folder may come from a stranger. Its config is checked, and Hydra gets what was checked; the
    folder itself is never a place in which Hydra looks for configs.
    """
    provenance.remember_command(argv)
    script, *arguments = argv
    if not any(word.startswith("resume=") for word in arguments):
        return argv
    flags, overrides = _of_one_run(arguments, "resume=FOLDER resumes a single run")
    folders = [word.removeprefix("resume=") for word in overrides if word.startswith("resume=")]
    others = [word for word in overrides if not word.startswith("resume=")]
    defaults = OmegaConf.load(provenance.PROJECT / "config/config.yaml").defaults
    groups = [group for entry in defaults if isinstance(entry, DictConfig) for group in entry]
    for word in others:
        if _key(word) in groups:
            raise ConfigError(
                f"{word} would make it another run: a resumed one keeps its {_key(word)}. Only "
                "single values can be changed, like epochs=20 or optimizer.lr=0.001."
            )
    folder = Path(folders[-1]).expanduser().absolute()
    config, _ = record.read_run(folder)
    record.check_writable(folder)
    ConfigStore.instance().store(name="resumed", node=schema.typed(config))
    ours = [f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null"]
    ours += ["hydra/job_logging=practical", "hydra/help=practical"]
    return [script, *flags, "--config-name", "resumed", *others, *ours]


def for_evaluate(argv: list[str]) -> list[str]:
    """`sys.argv` with `run=FOLDER` quoted: the folders of a sweep have = and , in their names."""
    script, *arguments = argv
    flags, overrides = _of_one_run(arguments, "evaluate.py evaluates a single run")
    words = [
        f"run={quoted(word.removeprefix('run='))}" if word.startswith("run=") else word
        for word in overrides
    ]
    return [script, *flags, *words]


def quoted(folder: str | Path) -> str:
    """A path as a value that Hydra takes literally. Raises ConfigError if that is impossible."""
    if "${" in str(folder):
        raise ConfigError(
            f"{folder} has ${{ in its name, which Hydra would interpolate: rename it."
        )
    # Within quotes, only quotes and the backslashes before them have to be escaped.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), str(folder))
    return f"'{escaped}'"


def _of_one_run(arguments: list[str], why: str) -> tuple[list[str], list[str]]:
    """Flags and overrides. Raises ConfigError, with the reason `why`, if they ask for a sweep."""
    args = get_args_parser().parse_args(arguments)
    if args.multirun or any(_key(word) in ("hydra", "hydra.mode") for word in args.overrides):
        raise ConfigError(f"{why}: leave --multirun and hydra.mode out.")
    return [word for word in arguments if word not in args.overrides], args.overrides


def _key(override: str) -> str:
    return re.split("[=@]", override.lstrip("+~"))[0]
