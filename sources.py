"""Where images come from: torchvision's datasets and scikit-learn's digits, read and checked.

`dataset.source` of the config names a class. Its constructor takes `root`, `train` and `download`,
as torchvision's do; an instance has `data`, uint8 `(N, H, W)` or `(N, H, W, C)`, and `targets`, the
N classes.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import torch

from data import ImageSet
from lab import files, memory
from lab.data_files import OFFLINE, diagnosis, files_of
from lab.provenance import PROJECT

log = logging.getLogger(__name__)


class DataError(OSError):
    """A data file that is missing, damaged, or not what the config says."""


_loaded: dict[tuple, tuple[ImageSet, ImageSet, str]] = {}


def data_root(data_dir: str | None) -> Path:
    """The folder of the data files: `data_dir`, or else data/ beside script.py."""
    return files.located(data_dir or PROJECT / "data")


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
        with _without_empty_folders(source, root), _locked(root) as writable:
            _drop_half_unpacked(source, root)
            train, test = (
                _image_set(_open(source, root, train, download=writable), facts, root)
                for train in (True, False)
            )
        repeats = getattr(facts, "repeats", 1)  # evaluate.py's dataset has none
        if train.images.nbytes * repeats > memory.total() // 2:
            raise DataError(
                f"dataset.repeats={repeats} needs {repeats} copies of the training images in "
                "memory, which this machine does not have: lower it."
            )
        digest = hashlib.sha256()
        for tensor in (train.images, train.labels, test.images, test.labels):
            digest.update(tensor.numpy())
        _loaded[key] = train, test, digest.hexdigest()
    return _loaded[key]


@contextmanager
def _without_empty_folders(source: Callable, root: Path) -> Iterator[None]:
    """Remove the folders that a download has made, or tried to make, and left empty."""
    below = {file.path.parent for file in files_of(source, root)} | {root}
    folders = {folder for path in below for folder in (path, *path.parents)}
    new = sorted((folder for folder in folders if not folder.exists()), reverse=True)
    lock = root / ".lock"
    try:
        yield
    finally:
        if root in new and [path for path in root.rglob("*") if not path.is_dir()] == [lock]:
            lock.unlink()
        for folder in new:  # those within others come first
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _locked(root: Path) -> Iterator[bool]:
    """Keep other processes from downloading to `root`; False if it cannot be written to."""
    lock = filelock.FileLock(root / ".lock")
    for _ in range(100):
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            break
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        except OSError:  # a shared, read-only folder, to which nothing is downloaded
            break
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _open(source: Callable, root: Path, train: bool, download: bool):
    try:
        return source(root=str(root), train=train, download=download)
    except Exception as error:  # whatever the network or the parser raises
        raise DataError(diagnosis(source, root, download, error)) from error


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
    if labels.ndim != 1:
        raise DataError(
            f"{name} has labels of shape {tuple(labels.shape)}, but one number per image is "
            "needed: use a class whose targets are class numbers."
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


def _drop_half_unpacked(source: Callable, root: Path) -> None:
    """Remove files that a killed process left half-unpacked: torchvision would read them."""
    for file in files_of(source, root):
        if not file.md5 and file.archive.exists() and file.path.exists() and file.damage():
            log.warning("%s was left half-unpacked: unpacking it again.", file.path)
            file.path.unlink()


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
