"""Your own pictures, converted to images like those that a model was trained on.

Grey datasets show a light object on black. A picture of another kind is adapted: every step that
changes it is reported.
"""

import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from lab.decoding import image_of, opened
from lab.errors import Refusal
from lab.picture_folder import is_picture

WILD = re.compile(r"[*?]|\[.*\]")  # what makes a name a pattern
BATCH = 500  # pictures that are classified at once
MOST_CLASSES = 10  # the most probable ones, which are shown of each
FAINTEST = 10  # the smallest difference, of 255 shades, between an object and its background


def batches(
    names: Sequence[str], facts: Any, failed: list[str]
) -> Iterator[tuple[list[str], Tensor, list[list[str]]]]:
    """Pictures, as many as are classified at once: their paths, the images `(B, C, H, W)`, and the
    changes that were made to each.

    The paths of those that cannot be read are added to `failed`, and the reasons printed.
    """
    paths: dict[Path, None] = {}  # what is named twice counts once
    for name in names:
        with _reported(name, failed):
            paths |= dict.fromkeys(found(name))
    ordered = list(paths)
    for start in range(0, len(ordered), BATCH):
        read = []
        for path in ordered[start : start + BATCH]:
            with _reported(str(path), failed):
                shape = facts.in_channels, facts.image_size, facts.margin
                read.append((str(path), *read_picture(path, *shape)))
        if read:
            shown, images, changes = zip(*read, strict=True)
            yield list(shown), torch.cat(images), list(changes)


@contextmanager
def _reported(name: str, failed: list[str]) -> Iterator[None]:
    try:
        yield
    except Refusal as error:
        print(error, file=sys.stderr)
        failed.append(name)
    except OSError as error:  # a name that is too long, a folder that may not be searched
        print(f"{name} cannot be read ({error.strerror}).", file=sys.stderr)
        failed.append(name)


def said_of(path: str, changes: list[str], ranked: list[tuple[str, float]]) -> str:
    """Two lines: the class of a picture and how it was adapted; the most probable classes."""
    shown = "  ".join(f"{name} {probability:.1%}" for name, probability in ranked[:MOST_CLASSES])
    more = "  …" if len(ranked) > MOST_CLASSES else ""
    return f"{path}: {ranked[0][0]} ({', '.join(changes)})\n  {shown}{more}"


def found(name: str) -> list[Path]:
    """The pictures that a name stands for: a file, a folder with those below it, or a pattern like
    *.png, in which ** stands for any folders. Raises Refusal if there are none."""
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        pictures = sorted(_below(path))
        if not pictures:
            raise Refusal(f"{path} has no picture in it: give a folder with PNG or JPEG files.")
        return pictures
    if path.exists() or not WILD.search(name):
        return [path]
    matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
    parts = (sorted(_below(match)) if match.is_dir() else [match] for match in matches)
    pictures = list(dict.fromkeys(picture for part in parts for picture in part))
    if not pictures:
        raise Refusal(
            f"{path} matches no picture: give the path of a picture, a folder or a pattern."
        )
    return pictures


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        yield from (Path(where, name) for name in names if name[0] != "." and is_picture(name))


def read_picture(
    path: Path, in_channels: int, image_size: int, margin: int | None
) -> tuple[Tensor, list[str]]:
    """A picture as an image of the dataset, uint8 `(1, C, H, W)`, and the changes that were made.

    For a grey dataset the object is cropped and fitted into the image, with the dataset's `margin`
    in pixels around it. With `margin=None`, as for a folder of pictures, it is decoded as those
    are, and not adapted. Raises Refusal for a file that is not a picture or shows nothing.
    """
    if not path.is_file():
        raise Refusal(f"{path} does not exist: give the path of a picture.")
    is_adapted = in_channels == 1 and margin is not None
    try:
        picture, changes = opened(path, None if is_adapted else image_size)
    except Exception as error:  # whatever a damaged file provokes
        raise Refusal(f"{path} cannot be read as a picture: give a PNG or JPEG file.") from error
    darkest, lightest = ImageOps.grayscale(picture).getextrema()
    if lightest - darkest < FAINTEST and margin is not None:
        raise Refusal(f"{path} is blank: every pixel has the same shade.")
    size = (image_size, image_size)
    if is_adapted:
        picture, done = light_on_black(ImageOps.grayscale(picture), image_size)
        changes += done
        if picture.size != size:
            box = picture.point(lambda value: 255 if value > 50 else 0).getbbox()
            inner = image_size - 2 * margin
            fitted = ImageOps.pad(
                picture.crop(box), (inner, inner), Image.Resampling.LANCZOS, color=0
            )
            picture = ImageOps.expand(fitted, margin, fill=0)
            changes.append(f"cropped and fitted into {image_size}×{image_size}")
    elif picture.size != size:
        changes.append(f"cropped to a square of {image_size}×{image_size}")
    return torch.tensor(image_of(picture, in_channels, image_size))[None], changes


def light_on_black(grey: Image.Image, size: int) -> tuple[Image.Image, list[str]]:
    """Invert a picture whose object is darker than its background, and stretch its contrast.

    A picture of the dataset's own `size` with a black background is left as it is: its shades may
    be meaningful.
    """
    changes = []
    edges = grey.crop((0, 0, grey.width, 1)).tobytes() + grey.crop((0, 0, 1, grey.height)).tobytes()
    background = sorted(edges)[len(edges) // 2]
    darkest, lightest = grey.getextrema()
    if background - darkest > lightest - background:
        grey, background, lightest = ImageOps.invert(grey), 255 - background, 255 - darkest
        changes.append("inverted, since its background is light")
    if background or (lightest < 255 and grey.size != (size, size)):
        span = lightest - background
        grey = grey.point(lambda value: round(255 * max(0, value - background) / span))
        changes.append(f"contrast stretched from {span} shades to 255")
    return grey, changes
