"""The state of training: saved whole, checked when it is loaded, resumed exactly."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lab import checkpoint, group, ranks
from lab.average import Average
from lab.checkpoint import CheckpointError
from lab.generators import generators, seed_everything, set_generators
from lab.schedule import Schedule


@dataclass
class State:
    """All that changes while a model trains: the content of `last.pt`.

    The order of the images and their augmentation are not part of it: they follow from the seed,
    the epoch, the step and the losses of the images. Neither is the scheduler: its state follows
    from the number of steps and the history.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: Schedule
    steps: list[int]  # in each epoch
    image_losses: Tensor  # (N,), of each training image when it was last trained on
    seed: int = 0
    ema: float | None = None  # decay of the average of the weights; without it, there is none
    history: list[dict[str, Any]] = field(default_factory=list)  # a row of figures per epoch
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    # Of the epoch under way:
    losses: list[Tensor] = field(default_factory=list)  # (B,) per step
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.average = Average(self.model, self.optimizer, self.ema) if self.ema else None
        self.trained = self.model  # what is called in training: `Machine.distribute` replaces it

    @property
    def evaluated(self) -> nn.Module:
        """What is validated, kept as the best and tested: the average of the model, or itself."""
        return self.average.module if self.average else self.model

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def is_last_epoch(self) -> bool:
        """Whether the epoch that finished is the last one."""
        return self.epoch == len(self.steps)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch with the highest validation accuracy. In a tie it is the last,
        which has trained longest."""
        return max(reversed(self.history), key=lambda row: row["val_accuracy"])

    def start_clock(self) -> None:
        """Start to time an epoch, unless it is a resumed one, whose time continues."""
        if not self.losses:
            self.started = time.perf_counter()

    def seconds(self) -> float:
        """Seconds of training in the epoch under way, including those before a resume."""
        return time.perf_counter() - self.started

    def end_epoch(self, train: dict[str, float], val: dict[str, float]) -> None:
        """Add a row of figures and, if it is the best one, keep a copy of the weights."""
        lr, seconds = self.scheduler.lr, round(train["seconds"], 3)
        speed = round(train["images_per_second"])
        figures = (self.epoch + 1, train["loss"], val["loss"], val["accuracy"], lr, seconds, speed)
        row = dict(zip(checkpoint.EPOCH_COLUMNS, figures, strict=True))
        self.history.append(row)
        self.losses = []
        self.scheduler.end_epoch(row)
        if self.best is row:
            weights = self.evaluated.state_dict()
            self.best_weights = {name: value.clone() for name, value in weights.items()}

    def summary(self) -> dict[str, Any]:
        """The figures of all epochs together, as `result.json` has them."""
        seconds = sum(row["seconds"] for row in self.history)
        num_images = sum(row["images_per_second"] * row["seconds"] for row in self.history)
        return {
            "val_accuracy": self.best["val_accuracy"],
            "val_loss": self.best["val_loss"],
            "best_epoch": self.best["epoch"],
            "epochs": self.epoch,
            "seconds": round(seconds, 2),
            "images_per_second": round(num_images / max(seconds, 0.001)),
        }

    def gathered_losses(self) -> Tensor:
        """The losses `(n,)` of the epoch so far, in the order of its images, from all processes of
        the run, whose models then have the same buffers, those of the first process."""
        group.copy_from_first(*self.evaluated.buffers())
        return self._losses().flatten()

    def _losses(self) -> Tensor:
        """`(steps, B)`, of whole batches."""
        if not self.losses:
            return torch.empty(0, 0)
        own = torch.stack(self.losses)
        parts = group.gathered(own.cpu()) if ranks.current().are_several else [own]
        return torch.cat(parts, 1).to(own.device)

    def save(self, path: Path) -> None:
        """Write the state to `path`, which all processes of the run do together: each has losses
        of its own, and random generators."""
        first, *others = group.gathered(generators())
        content = {
            "model": self.model.state_dict(),
            "optimizer": checkpoint.state_of(self.optimizer),
            "best_weights": self.best_weights,
            "history": self.history,
            "image_losses": self.image_losses,
            "losses": self._losses().cpu(),
            "seconds": self.seconds(),
            "steps": self.steps,
            "seed": self.seed,
            "generators": first,
        }
        if self.average:
            content["average"] = self.average.state_dict()
        if others:
            content["other_generators"] = others
        if ranks.current().is_first:
            checkpoint.save(content, path)

    def save_best(self, path: Path) -> None:
        if self.history:
            checkpoint.save({"model": self.best_weights, "epoch": self.best["epoch"]}, path)

    def resume(self, path: Path) -> None:
        """Load the checkpoint if there is one, which the first process reads for all. Each has
        random numbers of its own."""
        rank = ranks.current().rank
        if rank:
            seed_everything((self.seed + rank * 2**24) % 2**32)
        saved = group.from_first(checkpoint.load(path) if not rank and path.exists() else None)
        if saved is not None:
            self.load(path, saved)

    def load(self, path: Path, saved: dict[str, Any] | None = None) -> None:
        """Restore what `save` wrote to `path`, or that content itself. Hyper-parameters remain
        those of the config.

        Raises CheckpointError for a file that is not a checkpoint of this model and optimizer, that
        stopped in the middle of an epoch of another length, or that is beyond the last epoch.
        """
        saved = saved or checkpoint.load(path)
        try:
            self._check(saved, path)
            self._take(saved)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged or hostile file provokes
            raise CheckpointError(f"{path} is not a checkpoint of this run ({error!r}).") from error
        done = sum(self.steps[: self.epoch]) + len(self.losses)
        try:
            self.scheduler.replay(done, self.history)
        except ValueError as error:
            raise CheckpointError(
                f"{path} is already at step {done}, more than the config has: set more epochs."
            ) from error

    def _check(self, saved: dict[str, Any], path: Path) -> None:
        own = self.model.state_dict()
        checkpoint.check_weights(saved["model"], own, path)
        checkpoint.check_progress(saved, path)
        if saved["history"] or saved["best_weights"]:
            checkpoint.check_weights(saved["best_weights"], own, path)
        if self.average and "average" in saved:
            checkpoint.check_weights(saved["average"], self.average.state_dict(), path)
        checkpoint.check_optimizer(saved["optimizer"], self.optimizer, path)
        if saved.get("seed", self.seed) != self.seed:
            raise CheckpointError(
                f"{path} is from a run with seed={saved['seed']!r:.20}, not {self.seed}: put the "
                "run's own file there."
            )
        images, own_images = len(saved["image_losses"]), len(self.image_losses)
        if images != own_images:
            raise CheckpointError(
                f"{path} is from {images} training images, which cannot become {own_images}: "
                "leave val_size and limit as they were."
            )
        epoch = len(saved["history"])
        if epoch + (len(saved["losses"]) > 0) > len(self.steps):
            raise CheckpointError(
                f"{path} is already at epoch {epoch}, more than the config has: set more epochs."
            )
        if len(saved["losses"]) and saved["steps"][epoch] != self.steps[epoch]:
            raise CheckpointError(
                f"{path} stopped in the middle of an epoch of {saved['steps'][epoch]} steps, which "
                f"cannot continue with {self.steps[epoch]}: leave batch_size and skip_easy as they "
                "were."
            )

    def _take(self, saved: dict[str, Any]) -> None:
        """Copy the values into tensors of our own: those of the file may overlap, or be shorter in
        memory than their shape says, and kernels would write past their end."""
        weights = self.model.state_dict()
        self.model.load_state_dict(saved["model"])
        if self.average and "average" in saved:
            self.average.load_state_dict(
                checkpoint.own_copies(saved["average"], self.average.state_dict())
            )
        elif self.average:  # the run had none until now
            self.average.n_averaged.zero_()
        own, groups = checkpoint.state_of(self.optimizer), self.optimizer.state_dict()
        state = {
            number: checkpoint.own_copies(values, own[number])
            for number, values in saved["optimizer"].items()
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": groups["param_groups"]})
        self.best_weights = checkpoint.own_copies(saved["best_weights"], weights)
        self.history = saved["history"]
        self.image_losses = checkpoint.own_copy(saved["image_losses"], self.image_losses)
        losses = checkpoint.own_copy(saved["losses"]).to(self.image_losses.device)
        self.losses = list(losses[:, group.columns(losses.shape[1])] if len(losses) else losses)
        self.started = time.perf_counter() - saved["seconds"]
        own = [saved["generators"], *saved.get("other_generators", [])]
        if (rank := ranks.current().rank) < len(own):
            set_generators(checkpoint.own_copy(own[rank]))
