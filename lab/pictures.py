"""Your own pictures, converted to images like those that a model was trained on.

Grey datasets show a light object on black. A picture of another kind is adapted: every step that
changes it is reported.
"""

from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lab.errors import Refusal

FAINTEST = 10  # the smallest difference, of 255 shades, between an object and its background


def read_picture(
    path: Path, in_channels: int, image_size: int, margin: int
) -> tuple[Tensor, list[str]]:
    """A picture as an image of the dataset, uint8 `(1, C, H, W)`, and the changes that were made.

    For a grey dataset the object is cropped and fitted into the image, with the dataset's `margin`
    in pixels around it. Raises Refusal for a file that is no picture or shows nothing.
    """
    picture, changes = opaque(path)
    darkest, lightest = ImageOps.grayscale(picture).getextrema()
    if lightest - darkest < FAINTEST:
        raise Refusal(f"{path} is blank: every pixel has the same shade.")
    size = (image_size, image_size)
    if in_channels == 1:
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
        picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        changes.append(f"cropped to a square of {image_size}×{image_size}")
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(1, *size, in_channels).permute(0, 3, 1, 2), changes


def opaque(path: Path) -> tuple[Image.Image, list[str]]:
    """A picture file as opaque RGB with 8 bits per channel, and the changes that were made."""
    if not path.is_file():
        raise Refusal(f"{path} does not exist: give the path of a picture.")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            changes = [f"{picture.width}×{picture.height} pixels"]
            if picture.mode[0] in "IF":  # grey with 16 bits, 32 bits, or fractions
                picture = eight_bits(picture)
                changes.append("its range of values mapped to black … white")
            picture = picture.convert("RGBA")
    except Exception as error:  # whatever a damaged file provokes
        raise Refusal(f"{path} cannot be read as a picture: give a PNG or JPEG file.") from error
    alpha = picture.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return picture.convert("RGB"), changes
    # A drawing without a dark pixel would be invisible on white.
    drawn = ImageOps.grayscale(picture).histogram(alpha.point(lambda value: 255 * (value > 127)))
    color = "white" if any(drawn[:128]) else "black"
    flat = Image.new("RGBA", picture.size, color)
    flat.alpha_composite(picture)
    return flat.convert("RGB"), [*changes, f"placed on {color}, since it is transparent"]


def eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of larger or fractional values, from the lowest (black) to the highest."""
    values = numpy.asarray(picture, dtype=float)
    if not numpy.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    least, greatest = values.min(), values.max()
    shares = (values - least) / ((greatest - least) or 1)
    return Image.fromarray((255 * shares).round().astype(numpy.uint8))


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
