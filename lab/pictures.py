"""Your own pictures, converted to images like those that a model was trained on.

Grey datasets show a light object on black. A picture of another kind is adapted: every step that
changes it is reported.
"""

from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from lab.decoding import image_of, opened
from lab.errors import Refusal

FAINTEST = 10  # the smallest difference, of 255 shades, between an object and its background


def read_picture(
    path: Path, in_channels: int, image_size: int, margin: int | None
) -> tuple[Tensor, list[str]]:
    """A picture as an image of the dataset, uint8 `(1, C, H, W)`, and the changes that were made.

    For a grey dataset the object is cropped and fitted into the image, with the dataset's `margin`
    in pixels around it. With `margin=None`, as for a folder of pictures, it is decoded as those
    are, and not adapted. Raises Refusal for a file that is no picture or shows nothing.
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
