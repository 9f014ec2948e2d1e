"""The command lines of script.py and evaluate.py, before Hydra reads them."""

import re
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

import provenance
import record
from config import schema
from config.errors import ConfigError


def of_script(arguments: list[str]) -> list[str]:
    """`resume=FOLDER` spelt out for Hydra: the config of that run and its folder.

    The folder may come from a stranger. Its config is checked and handed over as it was checked;
    the folder itself is never a place that Hydra looks for configs in.
    """
    if not any(word.startswith("resume=") for word in arguments):
        return arguments
    flags, overrides = _of_one_run(arguments, "resume=FOLDER goes on with one run")
    folders = [word.removeprefix("resume=") for word in overrides if word.startswith("resume=")]
    others = [word for word in overrides if not word.startswith("resume=")]
    defaults = OmegaConf.load(provenance.PROJECT / "config/config.yaml").defaults
    groups = [group for entry in defaults if isinstance(entry, DictConfig) for group in entry]
    for word in others:
        if _key(word) in groups:
            raise ConfigError(
                f"{word} would make another run: a resumed one keeps its {_key(word)}. Only single "
                "values can be changed, like epochs=20 or optimizer.lr=0.001."
            )
    folder = Path(folders[-1]).expanduser().absolute()
    config, _ = record.read_run(folder)
    record.check_writable(folder)
    ConfigStore.instance().store(name="resumed", node=schema.typed(config))
    ours = [f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null"]
    ours += ["hydra/job_logging=practical", "hydra/help=practical"]
    return [*flags, "--config-name", "resumed", *others, *ours]


def of_evaluate(arguments: list[str]) -> list[str]:
    """`run=FOLDER` quoted for Hydra, to which the names of a sweep's folders say too much."""
    flags, overrides = _of_one_run(arguments, "evaluate.py looks at one run")
    words = [
        f"run={quoted(word.removeprefix('run='))}" if word.startswith("run=") else word
        for word in overrides
    ]
    return [*flags, *words]


def quoted(folder: str | Path) -> str:
    """A folder's name as a value that Hydra takes literally. Raises ConfigError where it cannot."""
    if "${" in str(folder):
        raise ConfigError(f"{folder} has ${{ in its name, which Hydra would replace: rename it.")
    # Within quotes only a quote, and the backslashes before one, have to be escaped.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), str(folder))
    return f"'{escaped}'"


def _of_one_run(arguments: list[str], why: str) -> tuple[list[str], list[str]]:
    """Flags and overrides. Raises ConfigError, saying why, if they ask for a sweep."""
    args = get_args_parser().parse_args(arguments)
    if args.multirun or any(_key(word) in ("hydra", "hydra.mode") for word in args.overrides):
        raise ConfigError(f"{why}: leave --multirun and hydra.mode out.")
    return [word for word in arguments if word not in args.overrides], args.overrides


def _key(override: str) -> str:
    return re.split("[=@]", override.lstrip("+~"))[0]
