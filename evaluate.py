"""Evaluate a run: its test accuracy class by class, or the classes of your own pictures.

python evaluate.py run=FOLDER
python evaluate.py run=FOLDER dataset=kmnist
python evaluate.py run=FOLDER images=[three.png,seven.jpg]

The folder may come from a stranger: no code in it runs, and nothing in it is changed.
"""

import os
import sys

sys.path.insert(0, __file__.removesuffix("evaluate.py"))  # python -P leaves it out

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from lab import command_line, files, record, schema
from lab.build import build, locate
from lab.errors import ConfigError, errors_as_sentences

# torch, and all that imports it, is imported within functions: --help and refusals are immediate.


@hydra.main(version_base="1.3", config_path="config", config_name="evaluate")
def main(asked: DictConfig) -> None:
    if OmegaConf.is_missing(asked, "run"):
        raise ConfigError("run=FOLDER is missing: name the run folder to evaluate.")
    folder = files.located(str(asked.run))
    config, result = record.read_run(folder, trusted=asked.trust)
    cfg = schema.typed(config)
    schema.check(cfg)
    facts = asked.dataset if "dataset" in asked else cfg.dataset
    check_same_shape(facts, cfg.dataset)

    from data import Augmentation
    from lab import checkpoint
    from lab.machine import Machine
    from training import predict

    machine = Machine.prepare(asked.device, cfg.precision, cfg.deterministic, cfg.seed)
    model = machine.place(build(cfg, "model"))
    checkpoint.load_weights(folder / "best.pt", model)
    augmentation = Augmentation(**cfg.augmentation)
    logits_of = partial(predict, model, machine=machine, augmentation=augmentation)
    if asked.images:
        names = asked.images if isinstance(asked.images, ListConfig) else [asked.images]
        classify([Path(os.path.expanduser(str(name))) for name in names], cfg.dataset, logits_of)
    else:
        test(facts, asked.data_dir, cfg.limit, result, logits_of)


def check_same_shape(facts: DictConfig, own: DictConfig) -> None:
    """Raises ConfigError for a dataset with other images or classes than the run's own."""
    for key in ("in_channels", "image_size", "num_classes"):
        if facts[key] != own[key]:
            raise ConfigError(
                f"dataset.{key}={facts[key]} is not what the run was trained on ({own[key]}): "
                "choose a dataset of the same shape."
            )


def test(
    facts: DictConfig,
    data_dir: str | None,
    limit: int | None,
    result: dict[str, Any],
    logits_of: Callable,
) -> None:
    """Print the accuracy on the test images, that of each class, and the confusion matrix."""
    import torch

    import sources

    source = locate(facts, "source")
    _, test_set, sha256 = sources.load(source, sources.data_root(data_dir), facts)
    test_set = test_set[:limit]
    predicted = logits_of(test_set).argmax(1)
    accuracy = (predicted == test_set.labels).double().mean().item()
    print(f"test accuracy {accuracy:.2%} on {len(test_set)} images")
    if result["status"] == "finished" and result.get("data_sha256") == sha256:
        print(f"the run recorded {result['test_accuracy']:.2%}")
    size = facts.num_classes
    pairs = test_set.labels * size + predicted
    confusion = torch.bincount(pairs, minlength=size**2).view(size, size)
    names = list(map(str, OmegaConf.to_container(facts.classes)))
    width = max(map(len, names))
    print("\nrows: the true class; columns: the predicted class, in the same order")
    for index, (name, row) in enumerate(zip(names, confusion.tolist(), strict=True)):
        right = f"{row[index] / sum(row):7.2%}" if sum(row) else "   none"
        print(f"{name:>{width}} {right}  " + " ".join(f"{count:5d}" for count in row))


def classify(paths: list[Path], facts: DictConfig, logits_of: Callable) -> None:
    """Print the class and the probabilities of each picture, and how it was adapted."""
    import torch

    from data import ImageSet
    from lab.pictures import read_picture

    for path in paths:
        images, changes = read_picture(path, facts.in_channels, facts.image_size, facts.margin)
        image_set = ImageSet(images, torch.zeros(1), tuple(facts.mean), tuple(facts.std))
        probabilities = logits_of(image_set).softmax(1)[0].tolist()
        names = map(str, OmegaConf.to_container(facts.classes))
        ranked = sorted(zip(probabilities, names, strict=True), reverse=True)
        print(f"{path}: {ranked[0][1]} ({', '.join(changes)})")
        print("  " + "  ".join(f"{name} {probability:.1%}" for probability, name in ranked))


if __name__ == "__main__":
    with errors_as_sentences():
        sys.argv = command_line.for_evaluate(sys.argv)
        main()
