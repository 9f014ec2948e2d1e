"""What this project changes in Hydra 1.3, and why. Importing this module applies the changes."""

import copy
import functools
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.hydra import Hydra
from hydra.core import utils
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, _utils, base, grammar_parser

from lab import completion, files
from lab.errors import Refusal


def _return_itself(self: Any, _: dict[int, Any]) -> Any:
    return self


def _deepcopy(metadata: base.Metadata, memo: dict[int, Any]) -> base.Metadata:
    copied = object.__new__(type(metadata))
    copied.__dict__ |= metadata.__dict__ | {"flags": dict(metadata.flags or {})}
    cache = metadata.resolver_cache
    copied.resolver_cache = copy.deepcopy(cache, memo) if cache else defaultdict(dict)
    return copied


def _choices(overrides: Any, defaults: list[Any], *rest: Any) -> DictConfig:
    refers = any("${" in str(vars(default)) for default in defaults)
    return _hydra_choices(overrides, defaults, *rest) if refers else DictConfig({})


def _return_value(job: JobReturn) -> Any:
    assert job.status != JobStatus.UNKNOWN, "return_value not yet available"
    if job.status == JobStatus.COMPLETED:
        return job._return_value
    raise job._return_value


def _save_config(cfg: Any, filename: str, output_dir: Path) -> None:
    with suppress(Refusal):  # the run, which checks its folder again, refuses it itself
        files.check_job_folder(output_dir.parent)
        files.make_folder(output_dir)
        files.write_text(output_dir / filename, OmegaConf.to_yaml(cfg))


def _configure_log(log_config: Any, verbose: Any = False) -> None:
    settings = OmegaConf.to_container(log_config, resolve=True) if log_config else {}
    for handler in settings.get("handlers", {}).values():
        if handler.get("class") == "logging.FileHandler":
            handler |= {"class": "lab.log_file.LogFile", "delay": True}
    _hydra_configure_log(OmegaConf.create(settings) if settings else log_config, verbose)


def _save(config: Any, f: Any, resolve: bool = False) -> None:
    text = OmegaConf.to_yaml(config, resolve=resolve)
    f.write(text) if hasattr(f, "write") else files.write_text(Path(f), text)


# --help lists the options of every group, and Hydra copies its whole store of configs for each of
# them, although what it takes out of the store is a copy already. The copies take half of the time.
ConfigStore.__deepcopy__ = _return_itself

# A job copies its config several times, which mostly copies the metadata of each value: the generic
# copy is slow, and only the flags and the cache ever change.
base.Metadata.__deepcopy__ = _deepcopy

# For each defaults list, Hydra makes a config of the choices so far, to resolve references in it:
# most lists have none.
_hydra_choices = defaults_list._create_interpolation_map
defaults_list._create_interpolation_map = _choices

# OmegaConf parses a reference again whenever its value is asked for, fifty times in a short job.
base.parse = _utils.parse = functools.lru_cache(256)(grammar_parser.parse)

# Hydra prints "Error executing job with overrides" before it raises the exception of a job. A run
# has already told its reason by then.
JobReturn.return_value = property(_return_value, JobReturn.return_value.fset)

# Hydra's tab completion runs every script whose name is completed.
Hydra.shell_completion = completion.instead_of(Hydra.shell_completion)

# Hydra writes its record of a job (.hydra/), the log of hydra/job_logging=default and the
# multirun.yaml of hydra/sweeper=basic through links, and before the run can refuse anything.
_hydra_configure_log = utils.configure_log
utils._save_config = _save_config
utils.configure_log = _configure_log
OmegaConf.save = staticmethod(_save)
