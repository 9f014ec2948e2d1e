"""Images and their labels, in memory or, where they do not fit, on the disk."""

import functools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from lab.errors import Refusal
from lab.memory import free_memory

AHEAD = 4  # batches that are read while the model computes
MOST_BUFFERS = 512  # per call; Linux allows 1,024


class ImageFile:
    """An open .npy file of uint8 images `(N, C, H, W)`, and the SHA-256 of its content."""

    def __init__(self, path: Path, sha256: str):
        self.path, self.sha256 = path, sha256
        self.mapped = numpy.load(path, mmap_mode="r")
        self.file = path.open("rb", buffering=0)  # stays readable if another process replaces it

    def read(self, rows: numpy.ndarray) -> Tensor:
        """The images of these rows, in this order.

        They are read, not copied from the mapping, whose pages would count as memory of this
        process for as long as nothing else needs the space.
        """
        shape = self.mapped.shape[1:]
        images = torch.empty((len(rows), *shape), dtype=torch.uint8)
        if not hasattr(os, "preadv"):  # Windows
            images.numpy()[:] = self.mapped[rows]
            return images
        order = numpy.argsort(rows, kind="stable")  # neighbours on the disk at once
        flat, size = memoryview(images.numpy().reshape(-1)), images[0].numel() if len(rows) else 0
        ends = numpy.flatnonzero(numpy.diff(rows[order]) != 1) + 1
        for run in numpy.split(order, ends):
            for i in range(0, len(run), MOST_BUFFERS):
                part = run[i : i + MOST_BUFFERS].tolist()
                buffers = [flat[k * size : (k + 1) * size] for k in part]
                self._fill(buffers, self.mapped.offset + int(rows[part[0]]) * size)
        return images

    def _fill(self, buffers: list[memoryview], offset: int) -> None:
        while buffers:
            count = os.preadv(self.file.fileno(), buffers, offset)
            if not count:
                raise Refusal(f"{self.path} is damaged, since it is too short: delete it.")
            offset += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if count:
                buffers[0] = buffers[0][count:]


@dataclass(frozen=True)
class OnDisk:
    """Images `(N, C, H, W)` that are on the disk: the `rows` of a file. Indexing reads nothing and
    gives another OnDisk; `read` gives the tensor, on `device`."""

    file: ImageFile
    rows: Tensor  # int64 (N,)
    device: torch.device | str = "cpu"
    names: Sequence[str] = ()  # of the picture files, by rows of the file, if it is made of such

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.file.mapped.shape[1:]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> "OnDisk":
        index = index.cpu() if isinstance(index, Tensor) else index
        return replace(self, rows=self.rows[index])

    def to(self, device: torch.device | str) -> "Tensor | OnDisk":
        """In memory, if they fit into half of what is free there; else still on the disk."""
        there = replace(self, device=device)
        places = {"cpu", str(device)}  # they pass through the memory of the CPU
        fits = self.shape.numel() <= min(map(free_memory, places)) / 2
        return there.read() if fits else there

    def read(self) -> Tensor:
        images = self.file.read(self.rows.numpy())
        if torch.device(self.device).type == "cuda":  # the copy runs parallel to the computation
            return images.pin_memory().to(self.device, non_blocking=True)
        return images.to(self.device)


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels on one device: uint8 `(N, C, H, W)` and int64 `(N,)`.

    `mean` and `std` have one value per channel, on a scale where black is 0 and white is 1.
    """

    images: Tensor | OnDisk
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val: "ImageSet | None" = None  # validation images that the source keeps apart from these
    num_classes: int = 0  # which only mixup and cutmix need

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> "ImageSet":
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> "ImageSet":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def names(self) -> Sequence[str | int]:
        """The names of the picture files, or else the positions in the dataset."""
        if not isinstance(self.images, OnDisk):
            return range(len(self))
        rows, names = self.images.rows.tolist(), self.images.names
        return [names[row] for row in rows] if names else rows

    def content(self) -> Any:
        """Bytes, or a buffer, that stand for the images: the same for the same images."""
        if isinstance(self.images, OnDisk):
            return self.images.file.sha256.encode() + self.images.rows.numpy().tobytes()
        return self.images.numpy()

    def repeated(self, times: int) -> "ImageSet":
        return self if times == 1 else self[torch.arange(len(self)).repeat(times)]

    def normalised(self) -> Tensor:
        """The images with zero mean and unit variance: float32 `(N, C, H, W)`."""
        images = self.images.read() if isinstance(self.images, OnDisk) else self.images
        return normalised(images, self.mean, self.std)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels of each index. Those on the disk are read by a thread, ahead."""
        if isinstance(self.images, Tensor) or not indices:
            for index in indices:
                yield self.images[index], self.labels[index]
            return
        pool, ahead = ThreadPoolExecutor(1), deque[Any]()
        # On the CPU at once: one by one, each would wait for the device.
        rows = torch.cat([*indices]).cpu().split([len(index) for index in indices])
        try:
            for index, own in zip(indices, rows, strict=True):
                ahead.append((pool.submit(self.images[own].read), index))
                if len(ahead) > AHEAD:
                    read, shown = ahead.popleft()
                    yield read.result(), self.labels[shown]
            for read, shown in ahead:
                yield read.result(), self.labels[shown]
        finally:
            pool.shutdown(cancel_futures=True)

    def counts(self, classes: Sequence[Any]) -> str:
        """How many images each class has, in one line."""
        found = torch.bincount(self.labels.cpu(), minlength=len(classes)).tolist()
        pairs = sorted(zip(found, map(str, classes), strict=True), key=lambda pair: pair[0])
        if len(classes) <= 12:
            shown = ", ".join(f"{name}: {n}" for n, name in zip(found, classes, strict=True))
        else:
            (least, rare), (most, common) = pairs[0], pairs[-1]
            shown = f"{len(classes)} classes of {least} ({rare}) to {most} ({common})"
        return f"{len(self)} training images, {shown}"


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 images `(B, C, H, W)` with zero mean and unit variance, as float32."""
    scale, offset = _scale_and_offset(mean, std, images.device)
    return (images * scale).add_(offset)


@functools.cache  # so that no step waits for these numbers to reach the device
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """`(C, 1, 1)` each: pixels of 0 … 255 times `scale` plus `offset` are normalised."""
    means, stds = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
    return 1 / (255 * stds), -means / stds
