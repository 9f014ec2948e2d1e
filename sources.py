"""Where images come from: torchvision's datasets, scikit-learn's digits, folders of pictures.

`dataset.source` of the config names a class, `dataset.train` and `dataset.test` the arguments that
ask it for the training and the test images. An instance has `data`, uint8 `(N, H, W)`,
`(N, H, W, C)` or `(N, C, H, W)`, and `targets`, the N classes, or else it gives items, pairs of a
PIL picture and its class.

    python sources.py FOLDER --name pets --image-size 64

describes a folder of your own pictures in config/dataset/pets.yaml.
"""

import hashlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, __file__.removesuffix("sources.py"))  # python -P leaves it out

import filelock
import numpy

from lab import decoded, files, memory, picture_folder
from lab.arguments import accepted
from lab.data_files import DataError, diagnosis, files_of, owner_of
from lab.errors import Refusal, errors_as_sentences
from lab.provenance import PROJECT

if TYPE_CHECKING:
    from data import ImageSet

# torch is imported within functions: to describe a folder, it is not needed.
log = logging.getLogger(__name__)

_loaded: dict[tuple, tuple["ImageSet", "ImageSet", dict[str, Any]]] = {}


def data_root(data_dir: str | None) -> Path:
    """The folder of the data files: `data_dir`, or else data/ beside script.py."""
    return files.located(data_dir or PROJECT / "data")


def load(
    source: Callable, root: Path, facts: Any, on_bad_image: str = "refuse"
) -> tuple["ImageSet", "ImageSet", dict[str, Any]]:
    """The training and test images of `source`, a dataset class or a `partial` of one, and what is
    recorded of them: their SHA-256 and, if there are any, the number of pictures left out.

    Files that are not under `root` are downloaded, and their md5 is checked. The images stay in
    memory, or on the disk, for the next job of the same process. `facts` are those of the dataset
    in the config. Raises DataError for files that are missing and cannot be downloaded, that are
    damaged, or that differ from `facts`.
    """
    from lab.arrays import image_set

    key = (repr(source), str(root), str(facts), on_bad_image)
    if key not in _loaded:
        given = {"root": str(root), "on_bad_image": on_bad_image}
        with _without_empty_folders(source, root), _locked(source, root) as writable:
            _drop_half_unpacked(source, root)
            opened = [
                _open(source, root, given | {"download": writable}, part, asked)
                for part, asked in _parts(facts).items()
            ]
        (train, *others), skipped = zip(
            *(image_set(dataset, facts, root, on_bad_image) for dataset in opened), strict=True
        )
        repeats = getattr(facts, "repeats", 1)  # evaluate.py's dataset has none
        values = len(train) * facts.in_channels * facts.image_size**2
        if repeats > 1 and values * repeats > memory.total() // 2:
            raise DataError(
                f"dataset.repeats={repeats} needs {repeats} copies of the training images in "
                "memory, which this machine does not have: lower it."
            )
        digest = hashlib.sha256()
        for part in (train, *others):
            digest.update(part.content())
            digest.update(part.labels.numpy())
        found = {"data_sha256": digest.hexdigest()}
        if sum(skipped):
            found["skipped_images"] = sum(skipped)
        _loaded[key] = replace(train, val=(*others, None)[1]), others[0], found
    return _loaded[key]


def _parts(facts: Any) -> dict[str, dict[str, Any]]:
    """The arguments that ask for each part."""
    parts = {
        "train": getattr(facts, "train", None) or {"train": True},
        "test": getattr(facts, "test", None) or {"train": False},
        "val": getattr(facts, "val", None),
    }
    return {part: dict(asked) for part, asked in parts.items() if asked}


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
def _locked(source: Callable, root: Path) -> Iterator[bool]:
    """Keep other processes from downloading to `root`; False if it cannot be written to. A class
    that downloads nothing needs no lock."""
    lock = filelock.FileLock(root / ".lock")
    for _ in range(100 if accepted(owner_of(source), "download") else 0):
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


def _open(
    source: Callable, root: Path, given: dict[str, Any], part: str, asked: dict[str, Any]
) -> Any:
    owner = owner_of(source)
    for name in asked:
        if not accepted(owner, name):
            raise DataError(
                f"{owner.__name__} has no argument {name}: set dataset.train and dataset.test to "
                "what asks it for its training and test images, as {split: train} and "
                "{split: test}."
            )
    known = {name: value for name, value in given.items() if accepted(owner, name)}
    try:
        return source(**known, **asked)
    except Refusal as error:  # of a class of ours, which says what to do
        raise DataError(str(error)) from error
    except Exception as error:  # whatever the network or the parser raises
        if "for argument" in str(error):  # of torchvision, before it reads any file
            raise DataError(f"dataset.{part}: {error}".partition("\n")[0]) from error
        raise DataError(diagnosis(source, root, given["download"], error)) from error


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
        # As sklearn.datasets.load_digits reads it, whose import takes a second.
        package = Path(find_spec("sklearn").origin).parent
        rows = numpy.loadtxt(package / "datasets/data/digits.csv.gz", delimiter=",", dtype=int)
        rows = rows[: -self.TEST_IMAGES] if train else rows[-self.TEST_IMAGES :]
        grey, self.targets = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]  # 0 … 16
        self.data = (grey * 255 / 16).round().astype("uint8")


class PictureFolder:
    """Pictures in `root/folder`, which `python sources.py FOLDER` describes; `split` is train, test
    or val. They are decoded once: `data` is a file of images that `lab.decoded` keeps.

    Nothing outside the data folder is read, so any run folder may name this class. Raises Refusal
    for a folder that is not what `classes`, the names of its folders, says.
    """

    def __init__(
        self,
        root: str,
        folder: str,
        split: str,
        classes: Sequence[str],
        in_channels: int,
        image_size: int,
        test_size: float | None = None,
        test_seed: int = 0,
        on_bad_image: str = "refuse",
    ):
        import torch

        from lab.images import ImageFile, OnDisk

        path = picture_folder.within(Path(root), folder)
        listing, part = picture_folder.part_of(path, split, test_size, test_seed)
        targets = picture_folder.labels_of(listing, list(map(str, classes)))
        found = picture_folder.decoded_from(listing, Path(root), in_channels, image_size)
        bad = {row: found.bad[row] for row in part if row in found.bad}
        decoded.check_bad(listing.names, bad, listing.folder, on_bad_image)
        rows = [row for row in part if row not in bad]
        self.size = len(part)  # with those that are left out
        prefix = listing.folder.relative_to(path)  # train, val, test, or nothing
        names = [(prefix / name).as_posix() for name in listing.names]
        file = ImageFile(found.path, found.sha256)
        self.data = OnDisk(file, torch.tensor(rows).long(), names=names)
        self.targets = targets[rows]

    def __len__(self) -> int:
        return self.size


if __name__ == "__main__":
    from lab.picture_config import main

    with errors_as_sentences():
        main(sys.argv[1:], __doc__)
