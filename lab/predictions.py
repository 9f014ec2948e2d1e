"""What a model says of images: figures, and a file."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from lab import files
from lab.escape import in_spreadsheet
from lab.images import ImageSet

ROWS = 1000  # of a file, which are written at once


@dataclass(frozen=True)
class Predictions:
    """Logits `(N, num_classes)` of N images, and labels `(N,)` if they are known.

    `names` are those of the images: file names, or indices in the order of the dataset.
    """

    logits: Tensor
    classes: list[str]
    names: Sequence[str | int]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @cached_property
    def predicted(self) -> Tensor:
        """int64 `(N,)`, on the CPU as all that follows."""
        return self.logits.argmax(1).cpu()

    @cached_property
    def probabilities(self) -> Tensor:
        """float64 `(N, num_classes)`: so that the loss can be computed from them again."""
        return self.logits.cpu().double().softmax(1)

    def ranked(self, index: int) -> list[tuple[str, float]]:
        """The classes and their probabilities for one image, the most probable first."""
        pairs = zip(self.probabilities[index].tolist(), self.classes, strict=True)
        return [(name, probability) for probability, name in sorted(pairs, reverse=True)]

    @property
    def accuracy(self) -> float:
        """As the run computes it."""
        return (self.predicted == self.labels).double().mean().item()

    @property
    def loss(self) -> float:
        """The mean cross-entropy, as the run computes it: in float32, and on the same device."""
        return F.cross_entropy(self.logits, self.labels.to(self.logits.device)).item()

    @cached_property
    def confusion(self) -> Tensor:
        """int64 `(num_classes, num_classes)`: a row per true class, a column per predicted one."""
        size = len(self.classes)
        pairs = self.labels * size + self.predicted
        return torch.bincount(pairs, minlength=size**2).view(size, size)

    def confused(self, most: int) -> list[tuple[int, str, str]]:
        """The pairs of different classes that were confused most often: how often, the true class,
        the predicted one."""
        errors = self.confusion - torch.diag(self.confusion.diag())
        pairs = errors.nonzero()
        counts = errors[pairs[:, 0], pairs[:, 1]]
        order = counts.argsort(descending=True, stable=True)[:most]
        return [
            (count, self.classes[label], self.classes[answer])
            for count, (label, answer) in zip(
                counts[order].tolist(), pairs[order].tolist(), strict=True
            )
        ]

    def write(self, path: Path) -> None:
        """A CSV file with a row per image. Probabilities have nine digits, as float32 has."""
        is_file = isinstance(self.names[0], str)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = ["file" if is_file else "index", *(["label"] if self.labels is not None else [])]
        head += ["prediction", *(f"p({name})" for name in self.classes)]
        shown = [in_spreadsheet(name) for name in self.classes]
        with files.replacing(path) as binary:
            text = io.TextIOWrapper(binary, "utf-8", errors="surrogateescape", newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(map(in_spreadsheet, head))
            for start in range(0, len(self), ROWS):
                part = slice(start, start + ROWS)
                columns = [[in_spreadsheet(name) for name in self.names[part]]]
                if self.labels is not None:
                    columns.append([shown[i] for i in self.labels[part].tolist()])
                columns.append([shown[i] for i in self.predicted[part].tolist()])
                for *cells, row in zip(*columns, self.probabilities[part].tolist(), strict=True):
                    writer.writerow([*cells, *(f"{probability:.9g}" for probability in row)])
            text.flush()
            text.detach()  # the file is closed by whoever opened it


@dataclass(frozen=True)
class Evaluated:
    """Predictions for the test images of a dataset, and whether the run was tested on these."""

    predictions: Predictions
    image_set: ImageSet
    dataset: str
    is_own: bool
