"""The state that a crash must not lose: saved whole, loaded without trust, resumed exactly."""

import io
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

import record
from config.errors import Refusal

log = logging.getLogger(__name__)


@dataclass
class State:
    """All that changes while a model trains: what `last.pt` holds.

    The order of the data and its augmentation are not in it: they follow from seed, epoch and step.
    Nor is the scheduler: its state is the number of steps taken.
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
        """The row of the epoch with the highest validation accuracy, the first of equals."""
        return max(self.history, key=lambda row: row["val_accuracy"])

    def end_epoch(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        self.losses = []
        if self.best is row:
            weights = self.model.state_dict()
            self.best_weights = {name: value.clone() for name, value in weights.items()}

    def save(self, path: Path) -> None:
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "best_weights": self.best_weights,
            "history": self.history,
            "image_losses": self.image_losses,
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0),
            "seconds": self.seconds_of_epoch(),
            "steps": self.steps,
            "generators": generators(),
        }
        save(content, path)

    def save_best(self, path: Path) -> None:
        if self.history:
            save({"model": self.best_weights, "epoch": self.best["epoch"]}, path)

    def load(self, path: Path) -> None:
        """Go back to where `save` was called. Hyper-parameters stay those of the config.

        Raises CheckpointError for a file that is no checkpoint of this model, or that stopped in
        the middle of an epoch of another length.
        """
        saved = load(path)
        try:
            load_weights(self.model, saved["model"], path)
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": saved["optimizer"], "param_groups": groups})
            self.best_weights, self.history = saved["best_weights"], saved["history"]
            device = next(self.model.parameters()).device
            image_losses = saved["image_losses"].to(device)
            self.losses = list(saved["losses"].to(device))
            self.began = time.perf_counter() - saved["seconds"]
            steps_before = saved["steps"]
            set_generators(saved["generators"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{path} is not a checkpoint of script.py ({error!r})."
            ) from error
        if len(image_losses) != len(self.image_losses):
            raise CheckpointError(
                f"{path} is of {len(image_losses)} training images, which cannot become "
                f"{len(self.image_losses)}: leave val_size and limit alone."
            )
        self.image_losses = image_losses
        if self.losses and steps_before[self.epoch] != self.steps[self.epoch]:
            raise CheckpointError(
                f"{path} stopped in the middle of an epoch of {steps_before[self.epoch]} steps, "
                f"which cannot go on with {self.steps[self.epoch]}: "
                "leave batch_size and skip_easy alone."
            )
        with warnings.catch_warnings():  # about a scheduler that is ahead of its optimizer
            warnings.simplefilter("ignore")
            for _ in range(sum(steps_before[: self.epoch]) + len(self.losses)):
                self.scheduler.step()


class CheckpointError(Refusal):
    """A checkpoint that cannot be used, told in one sentence."""


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Raises CheckpointError, naming what differs, for the weights of another model."""
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    other = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    differences = [f"{name} is missing" for name in missing]
    differences += [f"{name} is unknown" for name in unknown] + sorted(other)
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(
            f"{path} is a checkpoint of another model: {', '.join(differences[:3])}{more}."
        )
    model.load_state_dict(weights)


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
    name, keys, *rest = state["numpy"]
    numpy.random.set_state((name, keys.numpy().astype(numpy.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def save(content: dict[str, Any], path: Path) -> None:
    """Write tensors and primitives to `path`, which is never seen half-written.

    Raises OSError, naming `path`, when the disk is full or the folder read-only.
    """
    buffer = io.BytesIO()  # torch, writing to a full disk, does not say that it is full
    torch.save(content, buffer)
    with record.replacing(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing in it is run. Raises CheckpointError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is missing, damaged, or holds more than "
            "tensors and primitives."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of script.py.")
    return content


class Checkpoints:
    """Saves `last.pt` when it is due, and at the next step when the process is asked to stop.

    SIGINT, SIGTERM and SIGUSR2 (which schedulers send before they take a machine away) are noted
    while this context is open; a Ctrl-C after that ends the process at once. Who handled the signal
    before, as submitit does on Slurm to put the job back into the queue, has it after the save.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self, state: State, path: Path, interval: DictConfig):
        self.state, self.path = state, path
        self.every, self.in_seconds = interval.every, interval.unit == "seconds"
        self.saved_at = time.perf_counter()
        self.noted: list[int] = []

    def __enter__(self) -> "Checkpoints":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
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
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)
            else:
                log.info("Go on with python script.py resume=%s", self.path.parent)
                raise SystemExit(128 + number)
