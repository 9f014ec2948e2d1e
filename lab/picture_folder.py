"""A folder of pictures, one folder per class: its files, and which of them are for testing.

The layout is torchvision's ImageFolder: `train/CLASS/*`, `test/CLASS/*` and perhaps `val/CLASS/*`,
or `CLASS/*` alone, from which the test pictures are drawn.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from lab import decoded
from lab.errors import Refusal

# What torchvision's ImageFolder reads, and a few more that Pillow does.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".apng", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tif", ".tiff", ".webp", ".avif", ".jp2", ".tga"),
)


@dataclass(frozen=True)
class Listing:
    """The pictures below a folder, sorted, and what tells whether they have changed."""

    folder: Path
    names: list[str]  # CLASS/…/FILE, with / everywhere
    sizes: list[int]  # bytes
    times: list[int]  # of the last change, nanoseconds

    @property
    def classes(self) -> list[str]:
        return [name.partition("/")[0] for name in self.names]

    @property
    def paths(self) -> list[str]:
        return [os.path.join(self.folder, *name.split("/")) for name in self.names]

    def fingerprint(self) -> str:
        """Another one if any file is added, removed, renamed or changed."""
        digest = hashlib.sha256()
        for file in zip(self.names, self.sizes, self.times, strict=True):
            digest.update(repr(file).encode(errors="surrogateescape"))
        return digest.hexdigest()


def listed(folder: Path) -> Listing:
    """The pictures in the folders below `folder`, whose names are the classes. Hidden files, and
    files with another suffix than a picture has, do not count."""
    files = []
    for entry in _entries(folder):
        if entry.is_dir():
            files += _pictures(entry.path, f"{entry.name}/", {os.path.realpath(folder)})
    files.sort()
    return Listing(folder, *([file[i] for file in files] for i in range(3)))


def _pictures(folder: str, prefix: str, above: set[str]) -> Iterator[tuple[str, int, int]]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it is in
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _pictures(entry.path, f"{prefix}{entry.name}/", above | {real})
        elif is_picture(entry.name):
            try:
                facts = entry.stat()
                yield f"{prefix}{entry.name}", facts.st_size, facts.st_mtime_ns
            except OSError:  # a link that leads nowhere: decoding says so
                yield f"{prefix}{entry.name}", 0, 0


def _entries(folder: Path | str) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.name[0] != "."]


def is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def has_parts(folder: Path) -> bool:
    """Whether the folder has train/CLASS/*; else its own folders are the classes."""
    return (folder / "train").is_dir() and any(
        entry.is_dir() for entry in _entries(folder / "train")
    )


def part_of(folder: Path, split: str, test_size: float | None, seed: int) -> tuple[Listing, list]:
    """The listing that a split is part of, and its rows there; `test_size` is the share of each
    class that is for testing, where the folder has no part of its own for that."""
    base = folder / "train" if has_parts(folder) else folder
    if split in ("val", "test") and has_parts(folder) and (folder / split).is_dir():
        listing = listed(folder / split)
        return listing, list(range(len(listing.names)))
    if split == "val":
        raise Refusal(f"{folder / 'val'} is not a folder: set dataset.val=null.")
    listing = listed(base)
    drawn = drawn_for_test(listing, test_size, seed) if test_size else set()
    rows = range(len(listing.names))
    return listing, [row for row in rows if (row in drawn) == (split == "test")]


def drawn_for_test(listing: Listing, share: float, seed: int) -> set[int]:
    """The rows of a share of each class, of at least one picture, but never of all.

    Which ones depends on the seed and on their names alone: a picture that is added does not move
    the others from training to testing, except for one at the boundary.
    """
    by_class: dict[str, list[tuple[str, int]]] = {}
    for row, (name, owner) in enumerate(zip(listing.names, listing.classes, strict=True)):
        drawn = hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).hexdigest()
        by_class.setdefault(owner, []).append((drawn, row))
    found = set()
    for ranked in by_class.values():
        count = min(max(1, round(share * len(ranked))), len(ranked) - 1)
        found |= {row for _, row in sorted(ranked)[:count]}
    return found


def labels_of(listing: Listing, classes: Sequence[str]) -> numpy.ndarray:
    """The number of each picture's class. Raises Refusal for a folder that is not one of them."""
    numbers = {name: number for number, name in enumerate(classes)}
    if unknown := sorted(set(listing.classes) - numbers.keys()):
        raise Refusal(
            f"{listing.folder / unknown[0]} has pictures, but {unknown[0]!r} is not in "
            "dataset.classes: describe the folder again with python sources.py FOLDER --name NAME "
            "--force, or move it away."
        )
    return numpy.array([numbers[name] for name in listing.classes], dtype=numpy.int64)


def within(root: Path, folder: str) -> Path:
    """`folder` in the data folder. Raises Refusal for a path that leads out of it."""
    given = Path(folder)
    if given.is_absolute() or not given.parts or ".." in given.parts:
        raise Refusal(f"{folder!r} is not a folder within the data folder: give its name there.")
    if not (path := root / given).is_dir():
        raise Refusal(
            f"{path} is not a folder: put the pictures there, or set data_dir to the folder that "
            "has them (for a new run, DATA_DIR works as well)."
        )
    return path


def decoded_from(listing: Listing, root: Path, channels: int, size: int) -> decoded.Decoded:
    """The pictures of a listing as one file of images below `root`."""
    if not listing.names:
        raise Refusal(f"{listing.folder} has no pictures in folders, one for each class.")
    place = root / "decoded" / listing.folder.relative_to(root) / f"{channels}x{size}"
    fill = decoded.fill_from_files(listing.paths, channels, size)
    return decoded.decoded(place, listing.fingerprint(), len(listing.names), channels, size, fill)
