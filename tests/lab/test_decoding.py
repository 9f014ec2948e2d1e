import json
import subprocess
import sys

import numpy
import pytest
import torch
from conftest import PROJECT
from PIL import Image

from lab.decoding import decode, image_of, opened
from lab.pictures import read_picture

RED = Image.new("RGB", (40, 20), (250, 10, 10))
RED.paste((10, 10, 250), (0, 0, 4, 20))  # a blue edge, outside the square in the middle
GREY = numpy.tile(numpy.linspace(0, 60000, 40), (20, 1))


def see_through() -> Image.Image:
    """A dark square on nothing."""
    picture = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    picture.paste((9, 9, 9, 255), (15, 5, 25, 15))
    return picture


KINDS = {  # file name: (picture, options of save, the expected pixel in the middle, tolerance)
    "rgb.png": (RED, {}, (250, 10, 10), 0),
    "rgb.jpg": (RED, {"quality": 95}, (250, 10, 10), 6),
    "palette.png": (RED.quantize(8), {}, (250, 10, 10), 0),
    "palette.gif": (RED.quantize(8), {}, (250, 10, 10), 0),
    "cmyk.jpg": (RED.convert("CMYK"), {"quality": 95}, (250, 10, 10), 8),
    "cmyk.tif": (RED.convert("CMYK"), {}, (250, 10, 10), 0),
    "grey.png": (RED.convert("L"), {}, (82, 82, 82), 0),
    "bits.png": (RED.convert("1", dither=Image.Dither.NONE), {}, (0, 0, 0), 0),
    "la.png": (RED.convert("LA"), {}, (82, 82, 82), 0),
    "rgba.png": (see_through(), {}, (9, 9, 9), 0),
    "alpha.webp": (see_through(), {"lossless": True}, (9, 9, 9), 0),
    "keyed.png": (RED, {"transparency": (10, 10, 250)}, (250, 10, 10), 0),
    "16bit.png": (Image.fromarray(GREY.astype(numpy.uint16)), {}, (128, 128, 128), 8),
    "32bit.tif": (Image.fromarray(GREY.astype(numpy.int32)), {}, (128, 128, 128), 8),
    "float.tiff": (Image.fromarray(GREY.astype(numpy.float32)), {}, (128, 128, 128), 8),
    "animated.gif": (
        RED.quantize(8), {"save_all": True, "append_images": [Image.new("P", (40, 20))]},
        (250, 10, 10), 0,
    ),
    "animated.png": (
        RED, {"save_all": True, "append_images": [Image.new("RGB", (40, 20))]}, (250, 10, 10), 0,
    ),
    "ünï cödé 名.bmp": (RED, {}, (250, 10, 10), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_pictures_of_every_kind_are_decoded(tmp_path, name):
    picture, options, expected, tolerance = KINDS[name]
    picture.save(tmp_path / name, **options)
    image = image_of(opened(tmp_path / name, 20)[0], 3, 20)
    assert image.shape == (3, 20, 20) and image.dtype == numpy.uint8
    assert abs(image[:, 10, 10].astype(int) - expected).max() <= tolerance
    grey = image_of(opened(tmp_path / name, 20)[0], 1, 20)
    assert grey.shape == (1, 20, 20) and abs(int(grey[0, 10, 10]) - sum(expected) / 3) <= 50


@pytest.mark.parametrize("margin", [None, 0])
@pytest.mark.parametrize("name", ["rgb.jpg", "rgba.png", "16bit.png", "large.jpg"])
def test_evaluate_sees_the_same_image(tmp_path, name, margin):
    picture, options, *_ = KINDS.get(name, (RED.resize((400, 300)), {}))
    picture.save(tmp_path / name, **options)
    image = image_of(opened(tmp_path / name, 20)[0], 3, 20)
    seen, changes = read_picture(tmp_path / name, 3, 20, margin)
    assert torch.equal(seen[0], torch.from_numpy(image))
    assert changes[0] == f"{picture.width}×{picture.height} pixels"


def test_a_grey_picture_of_a_folder_is_not_adapted(tmp_path):
    picture = Image.new("L", (30, 30), 200)
    picture.putpixel((3, 3), 90)
    picture.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 1, 30, None)[0].unique().tolist() == [90, 200]
    assert read_picture(tmp_path / "a.png", 1, 30, 0)[0].unique().tolist() == [0, 255]
    Image.new("L", (30, 30), 200).save(tmp_path / "blank.png")  # such a picture is one of them, too
    assert read_picture(tmp_path / "blank.png", 1, 30, None)[0].unique().tolist() == [200]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, 10])
def test_pictures_are_turned_as_their_camera_says(tmp_path, orientation, size):
    upright = Image.new("RGB", (60, 40), "white")
    upright.paste((0, 0, 0), (0, 0, 30, 20))  # the upper left quarter
    back = {
        2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]
    }.get(orientation, [])  # fmt: skip
    stored = upright
    for method in back:  # Image.Transpose: the inverse of what the tag asks for
        stored = stored.transpose(Image.Transpose(method))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture, changes = opened(tmp_path / "a.jpg", size)
    assert changes == ["60×40 pixels"]
    width, height = picture.size
    assert width > height
    corners = [picture.getpixel((x, y))[0] for x in (2, width - 3) for y in (2, height - 3)]
    assert corners[0] < 40 and min(corners[1:]) > 200


def test_the_middle_of_a_picture_is_kept_and_large_jpegs_are_decoded_small(tmp_path):
    picture = Image.new("RGB", (800, 200), "red")
    picture.paste((0, 255, 0), (300, 0, 500, 200))
    picture.save(tmp_path / "a.jpg", quality=95)
    small, _ = opened(tmp_path / "a.jpg", 25)
    assert small.size == (100, 25)
    whole = image_of(opened(tmp_path / "a.jpg")[0], 3, 25).astype(int)
    image = image_of(small, 3, 25).astype(int)
    assert abs(image - whole).max() < 60 and abs(image - whole).mean() < 3
    assert (image[1, :, 2:-2] > 230).all() and (image[0, :, 2:-2] < 25).all()


def damaged(folder) -> dict[str, str]:
    """Files that are no pictures, and what is said of them."""
    RED.resize((400, 400)).save(folder / "cut.jpg")
    RED.resize((400, 400)).save(folder / "cut.png")
    for name in ("cut.jpg", "cut.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("I am not a picture.")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    Image.fromarray(numpy.full((9, 9), numpy.nan, dtype=numpy.float32)).save(folder / "nan.tiff")
    return {
        "cut.jpg": "truncated", "cut.png": "truncated", "text.jpg": "it is not a picture",
        "empty.png": "it is not a picture", "folder.png": "Is a directory",
        "nan.tiff": "not finite", "missing.png": "No such file",
    }  # fmt: skip


def test_a_process_decodes_jobs_and_names_what_it_cannot_decode(tmp_path):
    said = damaged(tmp_path)
    RED.save(tmp_path / "good.png")
    (tmp_path / "images").write_bytes(bytes(5 + 3 * 100 * (len(said) + 1)))
    paths = [str(tmp_path / name) for name in (*said, "good.png")]
    job = {"file": str(tmp_path / "images"), "channels": 3, "size": 10}
    jobs = [job | {"offset": 5, "paths": paths}, job | {"offset": 5, "paths": paths[-1:]}]
    done = subprocess.run(
        [sys.executable, "-m", "lab.decoding"], cwd=PROJECT, capture_output=True, text=True,
        input="".join(f"{json.dumps(job)}\n" for job in jobs), check=True,
    )  # fmt: skip
    first, second = map(json.loads, done.stdout.splitlines())
    assert done.stderr == "" and second["bad"] == {}
    for number, words in enumerate(said.values()):
        assert words in first["bad"].pop(str(number)), list(said)[number]
    assert first["bad"] == {}
    content = numpy.fromfile(tmp_path / "images", numpy.uint8)[5:].reshape(-1, 3, 10, 10)
    assert content[0, 0].min() == 250 and content[-1, 0].min() == 250  # both jobs wrote there
    assert not content[1 : len(said)].any()


def test_the_answer_is_the_hash_of_the_images(tmp_path):
    answers = []
    for color in ("red", "red", "blue"):
        Image.new("RGB", (9, 9), color).save(tmp_path / "a.png")
        (tmp_path / "images").write_bytes(bytes(300))
        job = {"file": str(tmp_path / "images"), "offset": 0, "channels": 3, "size": 10}
        answers.append(decode(job | {"paths": [str(tmp_path / "a.png")]})["sha256"])
    assert answers[0] == answers[1] != answers[2]
