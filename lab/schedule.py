"""Schedulers: how they are built, when they are stepped, and how a resumed run restores them."""

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lab.errors import ConfigError

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

# Keys of a scheduler that are not arguments of its class: when it is stepped, and by which figure.
NOT_ARGUMENTS = ("interval", "monitor")


class Schedule:
    """A scheduler that is stepped after each step of the optimizer or after each epoch.

    `interval` is "step" or "epoch". ReduceLROnPlateau is stepped per epoch with the figure
    `monitor`, a column of metrics.csv ("val_loss" by default), which no other scheduler has.

    Raises ConfigError for settings that contradict the scheduler.
    """

    def __init__(
        self, scheduler: "LRScheduler", interval: str = "step", monitor: str | None = None
    ):
        from torch.optim.lr_scheduler import ReduceLROnPlateau

        self.scheduler, self.interval, self.monitor = scheduler, interval, monitor
        self.lr = scheduler.get_last_lr()[0]  # of the last step that was taken
        name = type(scheduler).__name__
        if isinstance(scheduler, ReduceLROnPlateau):
            self.monitor = monitor or "val_loss"
            if interval != "epoch":
                raise ConfigError(
                    f"scheduler.interval={interval} is not possible for {name}, which needs a "
                    "figure of the whole epoch: set interval: epoch."
                )
            mode = "min" if self.monitor.endswith("loss") else "max"
            if scheduler.mode != mode:
                raise ConfigError(
                    f"scheduler.mode={scheduler.mode} with monitor={self.monitor} would lower the "
                    f"learning rate while the model improves: set scheduler.mode={mode}."
                )
        elif monitor is not None:
            raise ConfigError(
                f"scheduler.monitor={monitor} has no effect on {name}: leave it out. Only "
                "ReduceLROnPlateau reads a figure."
            )

    def step(self) -> None:
        """Call after each step of the optimizer."""
        self.lr = self.scheduler.get_last_lr()[0]
        if self.interval == "step":
            self.scheduler.step()

    def end_epoch(self, figures: dict[str, Any]) -> None:
        """Call after each epoch, with its row of metrics.csv."""
        if self.interval == "epoch":
            self.scheduler.step(*([figures[self.monitor]] if self.monitor else []))

    def replay(self, num_steps: int, history: list[dict[str, Any]]) -> None:
        """Repeat the steps of the optimizer and the epochs that a resumed run has behind it.

        This way, its hyper-parameters remain those of the config. Raises ValueError for a schedule
        that is shorter.
        """
        with warnings.catch_warnings():  # torch warns of scheduler steps before the optimizer's
            warnings.simplefilter("ignore")
            for _ in range(num_steps):
                self.step()
            for figures in history:
                self.end_epoch(figures)
        if self.interval == "epoch":
            self.lr = self.scheduler.get_last_lr()[0]


def scheduler_node(cfg: DictConfig, key: str = "scheduler") -> DictConfig:
    """The scheduler at `key` of `cfg`, its references resolved, as its class takes it.

    A milestone below 1 is a share of the steps. The schedulers of a sequence have each their own
    `total_steps`: the number of steps from one milestone to the next. Raises ConfigError for
    milestones that are not numbers.
    """
    node = OmegaConf.to_container(OmegaConf.select(cfg, key), resolve=True)
    node = {name: value for name, value in node.items() if name not in NOT_ARGUMENTS}
    total, marks = cfg.total_steps, node.get("milestones")
    if marks is not None:
        if not isinstance(marks, list) or not all(type(m) in (int, float) and m > 0 for m in marks):
            raise ConfigError(
                f"{key}.milestones={marks} is not allowed: it must be a list of numbers above 0, "
                "shares of all steps if below 1, else steps."
            )
        marks = [max(1, round(mark * total)) if mark < 1 else mark for mark in marks]
        node["milestones"] = marks
    parts = node.get("schedulers")
    if isinstance(parts, list):
        lengths = [total] * len(parts)
        if marks is not None and len(marks) == len(parts) - 1:  # else the class refuses them
            ends = zip([0, *marks], [*marks, total], strict=True)
            lengths = [max(1, int(end - start)) for start, end in ends]
        node["schedulers"] = [
            scheduler_node(OmegaConf.merge(cfg, {"total_steps": length}), f"{key}.schedulers[{i}]")
            for i, length in enumerate(lengths)
        ]
    return OmegaConf.create(node)


def complete(built: Any, *args: Any) -> Any:
    """Call a `_partial_`; if it is of a scheduler that has others in it, these first."""
    inner = built.keywords.get("schedulers") if isinstance(built, partial) else None
    if not inner:
        return built(*args)
    (optimizer,) = args  # by name, since it is not the first argument of every such class
    return built(optimizer=optimizer, schedulers=[complete(each, optimizer) for each in inner])
