"""The files of torchvision's datasets: which they are, whether they are whole, what to do if not.

torchvision reads an unpacked file as it is, and where it refuses one, it does not say which.
"""

import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Bytes per item of an IDX file, by the third byte of its header.
ITEM_SIZES = {b"\x08": 1, b"\x09": 1, b"\x0b": 2, b"\x0c": 4, b"\x0d": 4, b"\x0e": 8}
OFFLINE = "dataset=digits needs neither files nor a network"


class DataError(OSError):
    """A data file that is missing, damaged, or not what the config says."""


@dataclass(frozen=True)
class DataFile:
    """A data file, the archive that holds it, and their md5 if torchvision states them."""

    path: Path
    archive: Path
    archive_md5: str
    md5: str | None = None

    def damage(self) -> str | None:
        """What is wrong with the file, or None."""
        if self.md5:
            return _differs(self.path, self.md5)
        return _truncated(self.path) if "-idx" in self.path.name else None


def files_of(source: Callable, root: Path) -> Iterator[DataFile]:
    """The files that one of torchvision's datasets reads; nothing for other datasets."""
    owner = owner_of(source)
    kin = {base.__name__ for base in getattr(owner, "__mro__", ()) if _is_known(base)}
    if "CIFAR10" in kin:
        folder, archive = root / owner.base_folder, root / owner.filename
        meta = owner.meta["filename"], owner.meta["md5"]
        for name, md5 in (*owner.train_list, *owner.test_list, meta):
            yield DataFile(folder / name, archive, owner.tgz_md5, md5)
    elif kin & {"USPS", "SVHN"}:  # they read what is downloaded
        for part, (_, name, md5) in owner.split_list.items():
            if part in ("train", "test"):
                yield DataFile(root / name, root / name, md5, md5)
    elif "EMNIST" in kin:  # one archive for all splits
        raw, split = root / owner.__name__ / "raw", getattr(source, "keywords", {}).get("split")
        for part in ("train", "test"):
            for kind in ("images-idx3", "labels-idx1"):
                path = raw / f"emnist-{split}-{part}-{kind}-ubyte"
                yield DataFile(path, raw / "gzip.zip", owner.md5)
    elif "MNIST" in kin:
        resources = owner.resources
        if isinstance(resources, dict):  # QMNIST
            resources = [*resources["train"], *resources["test"]]
        for url, md5 in resources:
            archive = root / owner.__name__ / "raw" / url.rpartition("/")[2]
            yield DataFile(archive.with_suffix(""), archive, md5)


def _is_known(base: type) -> bool:
    return base.__module__.startswith("torchvision.datasets.")


def owner_of(source: Callable) -> Any:
    """The dataset class, or the function, behind a `partial`."""
    return source.func if isinstance(source, partial) else source


def _differs(path: Path, md5: str) -> str | None:
    """How a file differs from the original, or None."""
    found = hashlib.md5(path.read_bytes()).hexdigest()
    return None if found == md5 else f"{path} is damaged or altered (md5 {found}, expected {md5})"


def _truncated(path: Path) -> str | None:
    """Why the unpacked IDX file is incomplete, or None. Its header says how long it must be."""
    with path.open("rb") as file:
        head = file.read(4)
        item = ITEM_SIZES.get(head[2:3], 0) if head[:2] == b"\0\0" else 0
        sizes = file.read(4 * head[3]) if item and len(head) == 4 else b""
    dims = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
    size, expected = path.stat().st_size, 4 + 4 * len(dims) + item * math.prod(dims)
    if dims and size == expected:
        return None
    return f"{path} is not a whole IDX file (it has {size} bytes)"


def diagnosis(source: Callable, root: Path, writable: bool, error: Exception) -> str:
    """A sentence that names the file that is read, what is wrong with it, and what to do."""
    if root.exists() and not root.is_dir():
        return f"{root} is not a folder: set data_dir to the folder of the data files; {OFFLINE}."
    reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    failed = re.sub(r".*<urlopen error (\[Errno -?\d+\] )?(.*)>.*", r"\2", reason[0])
    why = failed if writable else f"{root} cannot be written to"
    for file in files_of(source, root):
        problem = file.damage() if file.path.exists() else f"{file.path} is missing"
        if not problem:
            continue
        if file.archive.exists() and file.archive != file.path:
            if differs := _differs(file.archive, file.archive_md5):
                return (
                    f"{differs} and could not be downloaded again ({why}): put the original file "
                    f"there; {OFFLINE}."
                )
            return (
                f"{problem}, and {file.archive} could not be unpacked ({why}): unpack it there, or "
                f"copy the files to a folder that can be written to and set data_dir; {OFFLINE}."
            )
        if file.path.exists():
            return (
                f"{problem}: put the original file there, or delete it and run again with a "
                f"network; {OFFLINE}."
            )
        if file.archive.with_suffix("") == file.path:
            problem = f"{file.archive} is missing"
        elif file.archive != file.path:
            problem += f", as is its archive {file.archive.name},"
        return (
            f"{problem} and could not be downloaded ({why}): put the file there, set data_dir to "
            "the folder that has it (for a new run, DATA_DIR works as well), or connect to the "
            f"network; {OFFLINE}."
        )
    return f"{owner_of(source).__name__} could not be loaded from {root} ({failed}); {OFFLINE}."
