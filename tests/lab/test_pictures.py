import numpy
import pytest
import torch
from PIL import Image

from lab.errors import Refusal
from lab.pictures import read_picture

MNIST = (1, 28, 4)  # in_channels, image_size, margin


def test_a_dataset_image_saved_as_a_picture_is_read_back_unchanged(tmp_path, data_dir):
    raw = (data_dir / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16 : 16 + 784]
    dark = numpy.frombuffer(raw, dtype=numpy.uint8).reshape(28, 28).copy()
    dark[0], dark[:, 0] = 0, 0  # a dark border, as in MNIST
    Image.fromarray(dark).save(tmp_path / "seen.png")
    images, changes = read_picture(tmp_path / "seen.png", *MNIST)
    assert torch.equal(images[0, 0], torch.from_numpy(dark))
    assert changes == ["28×28 pixels"]


SHAPE = numpy.zeros((90, 60), dtype=numpy.uint8)  # a white L on black
SHAPE[20:70, 15:25], SHAPE[60:70, 15:45] = 255, 255


def transparent(shade: int) -> Image.Image:
    """Draw the shape in one shade on a transparent background."""
    drawing = Image.new("RGBA", (60, 90), (shade, shade, shade, 0))
    drawing.putalpha(Image.fromarray(SHAPE))
    return drawing


def shades(shown: int, background: int) -> Image.Image:
    return Image.fromarray(numpy.where(SHAPE > 0, shown, background).astype(numpy.uint8))


PICTURES = {
    "dark.png": (shades(0, 255), "inverted, since its background is light"),
    "faint_dark.png": (shades(60, 170), "contrast stretched from 110 shades to 255"),
    "faint_light.png": (shades(90, 60), "contrast stretched from 30 shades to 255"),
    "light_on_light.png": (shades(250, 160), "contrast stretched from 90 shades to 255"),
    "dim.png": (shades(40, 0), "contrast stretched from 40 shades to 255"),
    "16bit.png": (
        Image.fromarray((SHAPE * 200).astype(numpy.uint16)),
        "its range of values mapped to black … white",
    ),
    "16bit_dark.png": (
        Image.fromarray((60000 - 200 * SHAPE.astype(int)).astype(numpy.uint16)),
        "inverted, since its background is light",
    ),
    "float.tiff": (
        Image.fromarray((SHAPE / 1000).astype(numpy.float32)),
        "its range of values mapped to black … white",
    ),
    "white_drawing.png": (transparent(255), "placed on black, since it is transparent"),
    "black_drawing.png": (transparent(0), "placed on white, since it is transparent"),
    "color.jpg": (shades(255, 0).convert("RGB"), "cropped and fitted into 28×28"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_different_drawings_of_a_shape_give_the_same_image(tmp_path, name):
    picture, expected_change = PICTURES[name]
    shades(255, 0).save(tmp_path / "plain.png")
    expected, changes = read_picture(tmp_path / "plain.png", *MNIST)
    assert changes == ["60×90 pixels", "cropped and fitted into 28×28"]
    picture.save(tmp_path / name)
    prepared, changes = read_picture(tmp_path / name, *MNIST)
    assert expected_change in changes
    difference = (prepared.int() - expected.int()).abs()
    assert difference.max() < (128 if name.endswith("jpg") else 9)
    assert difference.float().mean() < 4


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (30, 30), 0),
        Image.new("L", (30, 30), 255),
        Image.new("RGB", (1, 1), "red"),
        Image.new("RGBA", (30, 30), (0, 0, 0, 0)),
        Image.fromarray(numpy.full((30, 30), 7, dtype=numpy.float32)),
    ],
    ids=["black", "white", "a pixel", "transparent", "float"],
)
def test_a_blank_picture_is_refused(tmp_path, picture):
    picture.save(tmp_path / "a.tiff")
    with pytest.raises(Refusal, match="every pixel has the same shade"):
        read_picture(tmp_path / "a.tiff", *MNIST)
