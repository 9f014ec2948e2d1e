"""The state that a crash must not lose: saved whole, loaded without trust, resumed exactly."""

import logging
import random
import signal
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import checkpoint
from checkpoint import CheckpointError
from config.errors import SIGNALS

log = logging.getLogger(__name__)


@dataclass
class State:
    """All that changes while a model trains: what `last.pt` holds.

    The order of the data and its augmentation are not in it: they follow from seed, epoch, step and
    the losses of the images. Nor is the scheduler: its state is the number of steps taken.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    steps: list[int]  # of each epoch
    image_losses: Tensor  # (N,), of each training image when it was last trained on
    history: list[dict[str, Any]] = field(default_factory=list)  # a row of figures per epoch
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    # Of the epoch under way:
    losses: list[Tensor] = field(default_factory=list)  # (B,) per step
    began: float = field(default_factory=time.perf_counter)

    def seconds_of_epoch(self) -> float:
        """Seconds of training in the epoch under way, those before a resume included."""
        return time.perf_counter() - self.began

    def begin_epoch(self) -> None:
        """Start the clock of an epoch, unless it is one that goes on."""
        if not self.losses:
            self.began = time.perf_counter()

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch with the highest validation accuracy; of equals the last, whose lr
        was the lowest."""
        return max(reversed(self.history), key=lambda row: row["val_accuracy"])

    def end_epoch(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        self.losses = []
        if self.best is row:
            weights = self.model.state_dict()
            self.best_weights = {name: value.clone() for name, value in weights.items()}

    def save(self, path: Path) -> None:
        content = {
            "model": self.model.state_dict(),
            "optimizer": checkpoint.state_of(self.optimizer),
            "best_weights": self.best_weights,
            "history": self.history,
            "image_losses": self.image_losses,
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0, 0),
            "seconds": self.seconds_of_epoch(),
            "steps": self.steps,
            "generators": generators(),
        }
        checkpoint.save(content, path)

    def save_best(self, path: Path) -> None:
        if self.history:
            checkpoint.save({"model": self.best_weights, "epoch": self.best["epoch"]}, path)

    def load(self, path: Path) -> None:
        """Go back to where `save` was called. Hyper-parameters stay those of the config.

        Raises CheckpointError for a file that is no checkpoint of this model and optimizer, that
        stopped in the middle of an epoch of another length, or that is past the last epoch.
        """
        saved = checkpoint.load(path)
        try:
            self._check(saved, path)
            self._take(saved)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged or hostile file provokes
            raise CheckpointError(f"{path} is not a checkpoint of this run ({error!r}).") from error
        done = sum(self.steps[: self.epoch]) + len(self.losses)
        try:
            with warnings.catch_warnings():  # about a scheduler that is ahead of its optimizer
                warnings.simplefilter("ignore")
                for _ in range(done):
                    self.scheduler.step()
        except ValueError as error:
            raise CheckpointError(
                f"{path} is {done} steps on already, more than the config has: give it more epochs."
            ) from error

    def _check(self, saved: dict[str, Any], path: Path) -> None:
        own = self.model.state_dict()
        checkpoint.check_weights(saved["model"], own, path)
        checkpoint.check_progress(saved, path)
        if saved["history"] or saved["best_weights"]:
            checkpoint.check_weights(saved["best_weights"], own, path)
        checkpoint.check_optimizer(saved["optimizer"], self.optimizer, path)
        images, own_images = len(saved["image_losses"]), len(self.image_losses)
        if images != own_images:
            raise CheckpointError(
                f"{path} is of {images} training images, which cannot become {own_images}: "
                "leave val_size and limit alone."
            )
        epoch = len(saved["history"])
        if epoch + (len(saved["losses"]) > 0) > len(self.steps):
            raise CheckpointError(
                f"{path} is {epoch} epochs on already, more than the config has: "
                "give it more epochs."
            )
        if len(saved["losses"]) and saved["steps"][epoch] != self.steps[epoch]:
            raise CheckpointError(
                f"{path} stopped in the middle of an epoch of {saved['steps'][epoch]} steps, which "
                f"cannot go on with {self.steps[epoch]}: leave batch_size and skip_easy alone."
            )

    def _take(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": saved["optimizer"], "param_groups": groups})
        self.best_weights, self.history = saved["best_weights"], saved["history"]
        device = self.image_losses.device
        self.image_losses = saved["image_losses"].to(device)
        self.losses = list(saved["losses"].to(device))
        self.began = time.perf_counter() - saved["seconds"]
        set_generators(saved["generators"])


def generators() -> dict[str, Any]:
    """The state of every random generator, as tensors and primitives."""
    name, keys, *rest = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(numpy.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generators(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, position, *rest = state["numpy"]
    if not 0 <= position <= len(keys) == 624:  # NumPy would read past the end
        raise ValueError("the state of NumPy's generator is damaged")
    numpy.random.set_state((name, keys.numpy().astype(numpy.uint32), position, *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


class Checkpoints:
    """Saves `last.pt` when it is due, and at the next step when the process is asked to stop.

    SIGINT, SIGTERM and SIGUSR2 (which schedulers send before they take a machine away) are noted
    while this context is open; a Ctrl-C after that ends the process at once. Who handled the signal
    before, as submitit does on Slurm to put the job back into the queue, has it after the save.
    """

    def __init__(self, state: State, path: Path, interval: DictConfig):
        self.state, self.path = state, path
        self.every, self.in_seconds = interval.every, interval.unit == "seconds"
        self.saved_at = time.perf_counter()
        self.noted: list[int] = []

    def __enter__(self) -> "Checkpoints":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.noted.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def after_step(self) -> None:
        if self.noted or self._is_overdue():
            self._save()

    def after_epoch(self, is_last: bool) -> None:
        due = self._is_overdue() if self.in_seconds else self.state.epoch % self.every == 0
        if due or is_last or self.noted:
            self._save()

    def _is_overdue(self) -> bool:
        return self.in_seconds and time.perf_counter() - self.saved_at >= self.every

    def _save(self) -> None:
        """Save, and leave with exit code 128 + signal if one asked for it."""
        self.state.save(self.path)
        self.saved_at = time.perf_counter()
        while self.noted:
            number = self.noted.pop(0)
            name = signal.Signals(number).name
            epoch, step = self.state.epoch, len(self.state.losses)
            log.info("%s: saved after epoch %d, step %d", name, epoch, step)
            handler = self._before[number]
            if callable(handler):
                handler(number, None)
            else:  # it was ignored before, as in the background of a shell script
                raise SystemExit(128 + number)
