"""Trackers: programs that show runs, like TensorBoard, to which a run reports. None by default.

A tracker is a convenience: whatever goes wrong with it is one warning, and a run neither fails nor
waits for ever because of it. The record of a run is its folder.
"""

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from lab.build import make
from lab.cause import described
from lab.deadline import Calls
from lab.schema import NOT_THE_EXPERIMENT

log = logging.getLogger(__name__)

# Seconds that a run waits for a tracker: it may have to import a large package, to send one row of
# figures, and to send all that is left.
START, LOG, END = 60.0, 15.0, 60.0
# Keys of a class that say how it is built.
HOW_BUILT = ("_partial_", "_convert_", "_recursive_")
SUMMARY = ("test_accuracy", "test_loss", "best_epoch")


@dataclass(frozen=True)
class Description:
    """What a tracker is told of a run when it starts."""

    id: str  # of the run, also in its later parts: result.json has it
    name: str
    group: str | None  # the name of its sweep
    folder: Path
    config: dict[str, bool | int | float | str]  # the hyper-parameters by their full keys
    epoch: int  # finished ones, if the run is resumed: later ones may have been reported, too


class Tracker(Protocol):
    """What each class of config/logger/ offers. Any method may raise any exception."""

    def start(self, run: Description) -> int:
        """Start the run, or continue it if the tracker has it. Returns the last epoch whose figures
        it has: those of later epochs will be logged."""

    def log(self, figures: dict[str, float], epoch: int) -> None:
        """Take the figures of an epoch, `val/accuracy` for instance. The next `start` must not
        count what is lost if the process is killed after this."""

    def end(self, figures: dict[str, float], epoch: int, status: str, reason: str | None) -> None:
        """Take the figures of the whole run, and close it: finished, failed, pruned or
        interrupted, perhaps for a reason."""


class Trackers:
    """The trackers of a run, by the names that `logger=` gives them."""

    def __init__(self, cfg: DictConfig, folder: Path):
        self.cfg, self.folder = cfg, folder
        self.links: dict[str, Link] = {}

    def build(self) -> None:
        """Raises ConfigError for a tracker that is misspelt or not installed."""
        for name, node in self.cfg.logger.items():
            self.links[name] = Link(name, make(node, f"logger.{name}"))

    def identified(self, result: Mapping[str, Any]) -> dict[str, str]:
        """The id of the run for the trackers, an old or a new one; nothing without trackers."""
        if not self.links:
            return {}
        return {"tracker_id": result.get("tracker_id") or secrets.token_hex(6)}

    def start(self, result: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        """Start or continue the run of this `result`, and report epochs that a tracker lacks."""
        if not self.links:
            return
        group, config = group_of(self.folder), hyperparameters(self.cfg)
        folder = self.folder.absolute()
        run = Description(result["tracker_id"], folder.name, group, folder, config, len(history))
        for link in self.links.values():
            link.start(run, history)

    def log(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Report the last epoch."""
        for link in self.links.values():
            link.log(history)

    def end(self, result: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        for link in self.links.values():
            link.end(result, history)


class Link:
    """One tracker. After its first failure it is not called again, until the end of the run: a
    server that is back by then gets all that it has missed."""

    def __init__(self, name: str, tracker: Tracker):
        self.name, self.tracker = name, tracker
        self.calls = Calls()
        self.run: Description | None = None  # once it is started
        self.has_failed = False
        self.last = 0  # epoch that the tracker has

    def start(self, run: Description, history: Sequence[Mapping[str, Any]]) -> None:
        self.run = run
        self._try(START, self._start, history)

    def log(self, history: Sequence[Mapping[str, Any]]) -> None:
        if self.run and not self.has_failed:
            self._try(LOG, self._catch_up, history)

    def end(self, result: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        if not self.run:  # it ended before it began
            return
        if not self.calls.is_stuck:
            self._try(END, self._end, dict(result), history)
        self.run = None
        self.calls.close()

    def _start(self, history: Sequence[Mapping[str, Any]]) -> None:
        self.last = self.tracker.start(self.run)
        self._catch_up(history)

    def _catch_up(self, history: Sequence[Mapping[str, Any]]) -> None:
        for row in history:
            if row["epoch"] > self.last:
                self.tracker.log(named(row), row["epoch"])
                self.last = row["epoch"]

    def _end(self, result: dict[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        if self.has_failed:
            self._start(history)
        summary = {key: result[key] for key in SUMMARY if key in result}
        self.tracker.end(named(summary), len(history), result["status"], result.get("reason"))

    def _try(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        with generators_kept():
            try:
                self.calls(seconds, call, *args)
            except Exception as error:  # whatever a package, a server or a network raises
                if not self.has_failed:
                    reason = f"{described(error):.300}"
                    log.warning("logger=%s failed, the run continues: %s", self.name, reason)
                self.has_failed = True


@contextmanager
def generators_kept() -> Iterator[None]:
    """The random generators are afterwards as before: a tracker may draw a name from them, and the
    results of a run do not depend on its trackers."""
    from lab import generators  # not at the top: it imports torch

    before = generators.generators()
    try:
        yield
    finally:
        generators.set_generators(before)


def named(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an epoch or a run by the names that users of trackers expect."""
    found = {}
    for key, value in figures.items():
        part, _, figure = key.partition("_")
        is_of_a_part = part in ("train", "val", "test")
        found[f"{part}/{figure}" if is_of_a_part else key] = value
    found.pop("epoch", None)
    return found


def hyperparameters(cfg: DictConfig) -> dict[str, bool | int | float | str]:
    """The values of a config by their full keys; lists as JSON, and null values left out."""
    content = OmegaConf.to_container(cfg, resolve=True)
    for key in (*NOT_THE_EXPERIMENT, "total_steps"):
        content.pop(key, None)
    return dict(_leaves(content))


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", json.dumps(value)
        elif value is not None and key not in HOW_BUILT:
            yield f"{prefix}{key}", value


def group_of(folder: Path) -> str | None:
    """The name of the sweep that a run folder belongs to: that of the sweep's folder, below runs/
    if it is there."""
    sweep = folder.absolute().parent
    if not (sweep / "multirun.yaml").is_file():
        return None
    parts = sweep.parts
    below = len(parts) - parts[::-1].index("runs") if "runs" in parts[:-1] else len(parts) - 1
    return "/".join(parts[below:])
