"""Where a run comes from: what was asked for, and of which code, before it starts."""

from datetime import datetime
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lab import changes, provenance

# Recorded separately for each part of a run that was resumed.
PART = (
    *("started", "command", "versions", "commit", "dirty", "git_error", "changes"),
    *("device", "device_name", "processes", "threads", "precision", "data_sha256"),
)
GROUPS = ("model", "dataset", "optimizer")  # whose chosen options are recorded


def described(cfg: DictConfig, before: dict[str, Any]) -> dict[str, Any]:
    """The first content of `result.json`. The origin of earlier parts of the run, whose result is
    `before`, is kept in a list of its own."""
    job = HydraConfig.get()
    choices = {name: job.runtime.choices.get(name) for name in GROUPS}
    overrides = [*before.get("overrides", []), *job.overrides.task]
    asked = {
        "seed": cfg.seed,
        "overrides": list(dict.fromkeys(overrides)),
        "started": datetime.now().astimezone().isoformat(timespec="milliseconds"),
    }
    if before:
        part = {"changes": changes.file_of(before)}
        part |= {key: before[key] for key in PART if key in before}
        asked["earlier"] = [*before.get("earlier", []), part]
    kept = {key: value for key, value in before.items() if key not in ("reason", *PART)}
    chosen = {name: option for name, option in choices.items() if option is not None}
    command = {"command": provenance.command()}  # collected again: a notebook may train twice
    return kept | chosen | asked | provenance.collect() | command
