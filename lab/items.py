"""Datasets whose images are items, pairs of a PIL picture and a label, decoded by threads."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
from PIL import Image
from tqdm import tqdm

from lab.decoded import CHUNK, Fill, cores
from lab.decoding import image_of, opaque, reason_of
from lab.errors import Refusal


def fill_from_items(dataset: Any, channels: int, size: int) -> Fill:
    """Decode the items of a map-style dataset, which cannot be sent to other processes."""

    def fill(target: Path, offset: int, item: int):
        shape = (len(dataset), channels, size, size)
        images = numpy.memmap(target, numpy.uint8, "r+", offset, shape)
        labels, bad, digest = numpy.zeros(len(dataset), dtype=numpy.int64), {}, hashlib.sha256()

        def read(index: int) -> None:
            try:
                picture, label = dataset[index][:2]
                if not isinstance(picture, Image.Image):
                    raise Refusal(
                        f"its items give a {type(picture).__name__}, but a PIL picture is needed: "
                        "use a dataset of pictures, without transforms."
                    )
                images[index] = image_of(opaque(picture)[0], channels, size)
            except OSError as error:  # a damaged file, also what Pillow does not recognise
                bad[index] = reason_of(error)
                return
            labels[index] = whole(label)

        bar = tqdm(total=len(dataset), desc="decoding pictures", leave=False, disable=None)
        with bar, ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(dataset), CHUNK):
                rows = range(start, min(start + CHUNK, len(dataset)))
                for _ in pool.map(read, rows):
                    bar.update()
                digest.update(images[rows.start : rows.stop])
        images.flush()
        return digest.hexdigest(), bad, labels.tolist()

    return fill


def whole(label: Any) -> int:
    """A label as a number. Raises Refusal for one that is not a class."""
    try:
        value = numpy.asarray(label)
        if value.size == 1 and value.dtype.kind in "iub":
            return int(value.reshape(()))
    except (TypeError, ValueError):  # whatever a tensor of a GPU or a ragged list raises
        pass
    raise Refusal(
        f"the label of an image is {label!r:.60}, but a class number is needed: use a dataset for "
        "classification."
    )


def fingerprint(dataset: Any) -> str | None:
    """What tells whether the items of a dataset change: the paths that it holds, one per item, with
    sizes and times, and its labels. None if it holds no paths, so that nobody can know."""
    lists = [
        value for value in vars(dataset).values()
        if isinstance(value, list | tuple) and len(value) == len(dataset) > 0
    ]  # fmt: skip
    digest, has_paths = hashlib.sha256(repr(type(dataset)).encode()), False
    for value in lists:
        paths = [_path(item) for item in value]
        if all(path is not None and os.path.isfile(path) for path in paths):
            has_paths = True
            for path in paths:
                facts = os.stat(path)
                line = f"{path} {facts.st_size} {facts.st_mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
        labels = [item[1:] if isinstance(item, tuple) else item for item in value]
        if all(isinstance(label, int | tuple) for label in labels):
            digest.update(repr(labels).encode(errors="surrogateescape"))
    return digest.hexdigest() if has_paths else None


def _path(item: Any) -> str | None:
    first = item[0] if isinstance(item, tuple) and item else item
    return os.fspath(first) if isinstance(first, str | os.PathLike) else None
