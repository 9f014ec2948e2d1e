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
        classify(model, [Path(name) for name in asked.images], cfg)
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

    Grey data sets show something light on black, so a light background is inverted, and what is
    shown is cut out and fitted into the image with the data set's own margin.
    """
    import torch
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except Exception as error:  # whatever a damaged file provokes
        raise Refusal(f"{path} cannot be read as a picture: give a PNG or JPEG file.") from error
    changes = [f"{picture.width}×{picture.height} pixels"]
    flat = Image.new("RGBA", picture.size, "white")
    flat.alpha_composite(picture)
    size = facts.image_size
    if facts.in_channels == 1:
        flat = ImageOps.grayscale(flat)
        edges = flat.crop((0, 0, flat.width, 1)).tobytes()
        edges += flat.crop((0, 0, 1, flat.height)).tobytes()
        if sorted(edges)[len(edges) // 2] > 127:
            flat = ImageOps.invert(flat)
            changes.append("inverted, since its background is light")
        if flat.size != (size, size):
            box = flat.point(lambda value: 255 if value > 50 else 0).getbbox()
            flat = flat.crop(box or (0, 0, *flat.size))
            inner = size - 2 * facts.margin
            fitted = ImageOps.pad(flat, (inner, inner), Image.Resampling.LANCZOS, color=0)
            flat = ImageOps.expand(fitted, facts.margin, fill=0)
            changes.append(f"cut out and fitted into {size}×{size}")
    elif flat.size != (size, size):
        flat = ImageOps.fit(flat, (size, size), Image.Resampling.LANCZOS)
        changes.append(f"cut to a square of {size}×{size}")
    if facts.in_channels == 3:
        flat = flat.convert("RGB")
    pixels = torch.frombuffer(bytearray(flat.tobytes()), dtype=torch.uint8)
    return pixels.view(1, size, size, facts.in_channels).permute(0, 3, 1, 2), changes


if __name__ == "__main__":
    with errors_as_sentences():
        sys.argv[1:] = command.of_evaluate(sys.argv[1:])
        main()
