"""What a run learned: its test figure again, class by class, or the classes of your own pictures.

python evaluate.py run=FOLDER
python evaluate.py run=FOLDER dataset=kmnist
python evaluate.py run=FOLDER images=[three.png,seven.jpg]

The folder may come from a stranger: nothing in it is run, and nothing in it is changed.
"""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

import command
import record
from config import schema
from config.errors import ConfigError, Refusal, errors_as_sentences

FAINTEST = 10  # shades of 255 between what is shown and its background


@hydra.main(version_base="1.3", config_path="config", config_name="evaluate")
def main(asked: DictConfig) -> None:
    folder = _folder(asked)
    config, result = record.read_run(folder)
    cfg = schema.typed(config)
    schema.check(cfg)
    _check_same_shape(cfg, asked)

    import checkpoint
    import training

    cfg.device = asked.device
    training.prepare(cfg)
    model = training.build_model(cfg)
    weights = checkpoint.load(folder / "best.pt").get("model", {})
    checkpoint.check_weights(weights, model.state_dict(), folder / "best.pt")
    model.load_state_dict(weights)
    if asked.images:
        names = [asked.images] if isinstance(asked.images, str) else asked.images
        classify(model, [Path(str(name)) for name in names], cfg)
    else:
        own = {key: asked[key] for key in ("data_dir", "dataset") if key in asked}
        test(model, OmegaConf.merge(cfg, own), result)


def _folder(asked: DictConfig) -> Path:
    if OmegaConf.is_missing(asked, "run"):
        raise ConfigError("run=FOLDER is missing: name the run folder to evaluate.")
    return Path(str(asked.run)).expanduser().absolute()


def _check_same_shape(cfg: DictConfig, asked: DictConfig) -> None:
    """Another dataset can be looked at only through the same window."""
    for key in ("in_channels", "image_size", "num_classes"):
        if "dataset" in asked and asked.dataset[key] != cfg.dataset[key]:
            raise ConfigError(
                f"dataset.{key}={asked.dataset[key]} is not what the run was trained on "
                f"({cfg.dataset[key]}): choose a dataset of the same shape."
            )


def test(model: Any, cfg: DictConfig, result: dict[str, Any]) -> None:
    """Print the test accuracy, that of each class, and the confusion matrix."""
    import torch

    import script
    import training

    (_, _, images), sha256 = script.load_data(cfg)
    logits = training.predict(model, images, cfg)
    accuracy = (logits.argmax(1) == images.labels).double().mean().item()
    print(f"test accuracy {accuracy:.2%} on {len(images)} images")
    if result["status"] == "finished" and result.get("data_sha256") == sha256:
        print(f"the run recorded {result['test_accuracy']:.2%}")
    size = cfg.dataset.num_classes
    pairs = images.labels * size + logits.argmax(1)
    confusion = torch.bincount(pairs, minlength=size**2).view(size, size).cpu()
    width = max(map(len, cfg.dataset.classes))
    print("\nrows: what it is; columns: what the model says, in the same order")
    for index, (name, row) in enumerate(zip(cfg.dataset.classes, confusion.tolist(), strict=True)):
        right = f"{row[index] / sum(row):7.2%}" if sum(row) else "   none"
        print(f"{name:>{width}} {right}  " + " ".join(f"{count:5d}" for count in row))


def classify(model: Any, paths: list[Path], cfg: DictConfig) -> None:
    """Print the class and the probabilities of each picture, and what was done to it before."""
    import torch

    import data
    import training

    for path in paths:
        pixels, changes = prepare(path, cfg.dataset)
        facts = cfg.dataset
        image = data.ImageSet(pixels, torch.zeros(1), tuple(facts.mean), tuple(facts.std))
        logits = training.predict(model, image.to(cfg.device), cfg)
        chances = sorted(
            zip(logits.softmax(1)[0].tolist(), facts.classes, strict=True), reverse=True
        )
        print(f"{path}: {chances[0][1]} ({', '.join(changes)})")
        print("  " + "  ".join(f"{name} {chance:.1%}" for chance, name in chances))


def prepare(path: Path, facts: DictConfig) -> tuple[Any, list[str]]:
    """A picture as the model knows them, uint8 `(1, C, H, W)`, and what had to be done to it.

    Grey data sets show something light on black: what is shown is cut out and fitted into the image
    with the data set's own margin. Raises Refusal where nothing is shown.
    """
    import torch
    from PIL import Image, ImageOps

    picture, changes = opaque(path)
    darkest, lightest = ImageOps.grayscale(picture).getextrema()
    if lightest - darkest < FAINTEST:
        raise Refusal(f"{path} is all of one shade: nothing is shown in it.")
    size = facts.image_size
    if facts.in_channels == 1:
        picture, done = light_on_black(ImageOps.grayscale(picture), size)
        changes += done
        if picture.size != (size, size):
            box = picture.point(lambda value: 255 if value > 50 else 0).getbbox()
            inner = size - 2 * facts.margin
            fitted = ImageOps.pad(
                picture.crop(box), (inner, inner), Image.Resampling.LANCZOS, color=0
            )
            picture = ImageOps.expand(fitted, facts.margin, fill=0)
            changes.append(f"cut out and fitted into {size}×{size}")
    elif picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
        changes.append(f"cut to a square of {size}×{size}")
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(1, size, size, facts.in_channels).permute(0, 3, 1, 2), changes


def opaque(path: Path) -> tuple[Any, list[str]]:
    """A picture file as RGB, 8 bits a channel, nothing in it transparent; and what that took."""
    from PIL import Image, ImageOps

    if not path.is_file():
        raise Refusal(f"{path} does not exist: give the path of a picture.")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            changes = [f"{picture.width}×{picture.height} pixels"]
            if picture.mode[0] in "IF":  # grey with 16 bits, 32 bits, or fractions
                picture = eight_bits(picture)
                changes.append("its range of values taken as black to white")
            picture = picture.convert("RGBA")
    except Exception as error:  # whatever a damaged file provokes
        raise Refusal(f"{path} cannot be read as a picture: give a PNG or JPEG file.") from error
    alpha = picture.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return picture.convert("RGB"), changes
    # A drawing without a dark pixel would be lost on white.
    drawn = ImageOps.grayscale(picture).histogram(alpha.point(lambda value: 255 * (value > 127)))
    color = "white" if any(drawn[:128]) else "black"
    flat = Image.new("RGBA", picture.size, color)
    flat.alpha_composite(picture)
    return flat.convert("RGB"), [*changes, f"put on {color}, since it is transparent"]


def eight_bits(picture: Any) -> Any:
    """A grey picture of larger or fractional values: its least is black, its greatest white."""
    import numpy
    from PIL import Image

    values = numpy.asarray(picture, dtype=float)
    if not numpy.isfinite(values).all():
        raise ValueError("a value of it is no number")
    least, greatest = values.min(), values.max()
    shares = (values - least) / ((greatest - least) or 1)
    return Image.fromarray((255 * shares).round().astype(numpy.uint8))


def light_on_black(grey: Any, size: int) -> tuple[Any, list[str]]:
    """Inverted if what is shown is darker than the background, and as bright as it can be.

    A picture of the data set's own `size` on black stays as it is: its shades may mean something.
    """
    from PIL import ImageOps

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


if __name__ == "__main__":
    with errors_as_sentences():
        sys.argv[1:] = command.of_evaluate(sys.argv[1:])
        main()
