"""Pictures of any kind as images of one shape; and a process that decodes many of them.

Nothing here imports torch or Hydra, so that such a process starts at once:
`python -m lab.decoding` reads a job per line and answers each with a line, both in JSON.
"""

import hashlib
import json
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy
from PIL import Image, ImageOps

ORIENTATION = 0x0112  # the tag of EXIF


def image_of(picture: Image.Image, channels: int, size: int) -> numpy.ndarray:
    """A picture as an image, uint8 `(C, H, W)`: its shorter side is scaled to `size`, the longer
    one is cropped on both sides alike."""
    if channels == 1:
        picture = ImageOps.grayscale(picture)
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    pixels = numpy.asarray(picture, dtype=numpy.uint8).reshape(size, size, channels)
    return numpy.ascontiguousarray(pixels.transpose(2, 0, 1))


def opened(path: Path | str, size: int | None = None) -> tuple[Image.Image, list[str]]:
    """A picture file as an upright, opaque RGB picture with 8 bits per channel, and the changes
    that were made.

    A JPEG file of twice the `size` or more is decoded at a half, a quarter or an eighth of its own,
    but not below `size`: the decoder averages the pixels, and takes less time than for all of them.
    Raises any exception for a file that is not a picture.
    """
    with Image.open(path) as file:
        is_turned = file.getexif().get(ORIENTATION, 1) != 1
        width, height = file.size
        if size:
            file.draft("RGB", (size, size))
        file.load()
        picture = ImageOps.exif_transpose(file) if is_turned else file
    if (width > height) != (picture.width > picture.height):
        width, height = height, width
    picture, changes = opaque(picture)
    return picture, [f"{width}×{height} pixels", *changes]


def opaque(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """A picture without transparency, in RGB, and the changes that were made."""
    changes = []
    if picture.mode[0] in "IF":  # grey with 16 bits, 32 bits, or fractions
        picture = eight_bits(picture)
        changes.append("its range of values mapped to black … white")
    if not picture.has_transparency_data:
        return picture.convert("RGB"), changes
    picture = picture.convert("RGBA")
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


def reason_of(error: Exception) -> str:
    """Why a picture could not be decoded, on one line and without its path."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def decode(job: dict[str, Any]) -> dict[str, Any]:
    """Decode the pictures of a job into its file. The answer has the SHA-256 of the images and,
    for each picture that could not be decoded, the reason; its image is black."""
    shape = (len(job["paths"]), job["channels"], job["size"], job["size"])
    images, bad = numpy.zeros(shape, dtype=numpy.uint8), {}
    for i, path in enumerate(job["paths"]):
        try:
            picture, _ = opened(path, job["size"])
            images[i] = image_of(picture, job["channels"], job["size"])
        except Exception as error:  # whatever a damaged file provokes
            bad[i] = reason_of(error)
    with open(job["file"], "r+b") as file:
        file.seek(job["offset"])
        file.write(images)
    return {"bad": bad, "sha256": hashlib.sha256(images).hexdigest()}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gave the jobs stops this one
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(decode(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
