"""Where images come from: torchvision's datasets and scikit-learn's digits, read and checked.

`dataset.source` of the config names a class. Its constructor takes `root`, `train` and `download`,
as torchvision's do; an instance has `data`, uint8 `(N, H, W)` or `(N, H, W, C)`, and `targets`, the
N classes.
"""

import hashlib
import logging
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import torch

from data import ImageSet
from lab.provenance import PROJECT

log = logging.getLogger(__name__)

OFFLINE = "dataset=digits needs neither files nor a network"


class DataError(OSError):
    """A data file that is missing, damaged, or not what the config says."""


_loaded: dict[tuple, tuple[ImageSet, ImageSet, str]] = {}


def data_root(data_dir: str | None) -> Path:
    """The folder of the data files: `data_dir`, or else data/ beside script.py."""
    return Path(data_dir or PROJECT / "data").expanduser().absolute()


def load(source: Callable, root: Path, facts: Any) -> tuple[ImageSet, ImageSet, str]:
    """The training and test images of `source`, a dataset class or a `partial` of one, and the
    SHA-256 of both.

    Files that are not under `root` are downloaded, and their md5 is checked. The images stay in
    memory for the next job of the same process. `facts` are the `in_channels`, `image_size` and
    `num_classes` that the images must have, and their `mean` and `std`.

    Raises DataError for files that are missing and cannot be downloaded, that are damaged, or that
    differ from `facts`.
    """
    key = (repr(source), str(root), str(facts))
    if key not in _loaded:
        with _locked(root) as writable:
            _drop_half_unpacked(source, root)
            train, test = (
                _image_set(_open(source, root, train, download=writable), facts, root)
                for train in (True, False)
            )
        digest = hashlib.sha256()
        for tensor in (train.images, train.labels, test.images, test.labels):
            digest.update(tensor.numpy())
        _loaded[key] = train, test, digest.hexdigest()
    return _loaded[key]


@contextmanager
def _locked(root: Path) -> Iterator[bool]:
    """Keep other processes from downloading to `root`; False if it cannot be written to."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(root / ".lock")
        lock.acquire()
    except OSError:  # a shared, read-only folder, to which nothing is downloaded
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _open(source: Callable, root: Path, train: bool, download: bool):
    try:
        return source(root=str(root), train=train, download=download)
    except Exception as error:  # whatever the network or the parser raises
        raise DataError(_diagnosis(source, root, error)) from error


def _image_set(dataset, facts: Any, root: Path) -> ImageSet:
    images, labels = torch.as_tensor(dataset.data), torch.as_tensor(dataset.targets).long()
    if images.ndim == 3:  # grey: (N, H, W)
        images = images.unsqueeze(1)
    elif images.shape[-1] == facts.in_channels:  # colour as pictures have it: (N, H, W, C)
        images = images.permute(0, 3, 1, 2)
    said = (facts.in_channels, facts.image_size, facts.image_size)
    name, found = type(dataset).__name__, tuple(images.shape[1:])
    if found != said:
        raise DataError(
            f"{name} in {root} has images of (channels, height, width) = {found}, but the config "
            f"says {said}: correct dataset.in_channels and dataset.image_size."
        )
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"{name} in {root} has {len(images)} images but {len(labels)} labels: "
            f"put the original files there, or use another dataset ({OFFLINE})."
        )
    if labels.min() < 0 or labels.max() >= facts.num_classes:
        raise DataError(
            f"{name} in {root} has labels {labels.min()} to {labels.max()}, but the config says "
            f"dataset.num_classes={facts.num_classes}, which allows 0 to {facts.num_classes - 1}."
        )
    return ImageSet(
        images.to(torch.uint8).contiguous(), labels, tuple(facts.mean), tuple(facts.std)
    )


def _raw_files(source: Callable, root: Path) -> Iterator[tuple[Path, Path, str]]:
    """(unpacked file, archive, its md5) for datasets of the MNIST family; nothing for others."""
    dataset_class = source.func if isinstance(source, partial) else source
    for archive, md5 in getattr(dataset_class, "resources", ()):
        path = root / dataset_class.__name__ / "raw" / archive
        yield path.with_suffix(""), path, md5


def _truncated(path: Path) -> str | None:
    """Why the unpacked IDX file is incomplete, or None. Its header says how long it must be."""
    with path.open("rb") as file:
        head = file.read(4)
        sizes = file.read(4 * head[3]) if head[:3] == b"\0\0\x08" else b""  # 8: unsigned bytes
    dims = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
    size, expected = path.stat().st_size, 4 + 4 * len(dims) + math.prod(dims)
    if dims and size == expected:
        return None
    return f"{path} is not a whole IDX file (it has {size} bytes)"


def _drop_half_unpacked(source: Callable, root: Path) -> None:
    """Remove files that a killed process left half-unpacked: torchvision would read them."""
    for unpacked, archive, _ in _raw_files(source, root):
        if archive.exists() and unpacked.exists() and _truncated(unpacked):
            log.warning("%s was left half-unpacked: unpacking it again.", unpacked)
            unpacked.unlink()


def _diagnosis(source: Callable, root: Path, error: Exception) -> str:
    """A sentence that names the file, what is wrong with it, and what to do."""
    for unpacked, archive, md5 in _raw_files(source, root):
        if unpacked.exists():
            if reason := _truncated(unpacked):
                return f"{reason}: delete it and run again to fetch it, or {OFFLINE}."
            continue
        if archive.exists():
            found = hashlib.md5(archive.read_bytes()).hexdigest()
            if found != md5:
                return (
                    f"{archive} is damaged or incomplete (md5 {found}, expected {md5}) and could "
                    f"not be downloaded again: put the original file there; {OFFLINE}."
                )
            continue
        return (
            f"{archive} is missing and could not be downloaded: put the file there, set data_dir "
            f"or DATA_DIR to the folder that has it, or connect to the network; {OFFLINE}."
        )
    dataset_class = source.func if isinstance(source, partial) else source
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{dataset_class.__name__} could not be loaded from {root} ({reason}); {OFFLINE}."


class Digits:
    """scikit-learn's 1,797 handwritten digits of 8×8 pixels, with torchvision's constructor.

    They are part of the package (UCI's Optical Recognition of Handwritten Digits, Alpaydin and
    Kaynak 1998), so `root` and `download` are ignored. The last 360 are the test images.
    """

    TEST_IMAGES = 360

    def __init__(self, root: str = "", train: bool = True, download: bool = False):
        from sklearn.datasets import load_digits  # takes a second

        digits = load_digits()
        part = slice(None, -self.TEST_IMAGES) if train else slice(-self.TEST_IMAGES, None)
        grey = torch.from_numpy(digits.images[part])  # 0 … 16
        self.data = (grey * 255 / 16).round().to(torch.uint8)
        self.targets = torch.from_numpy(digits.target[part])
