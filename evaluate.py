"""Evaluate a run: its test accuracy class by class, or the classes of your own pictures.

python evaluate.py run=FOLDER
python evaluate.py run=FOLDER dataset=kmnist
python evaluate.py run=FOLDER images=[three.png,seven.jpg]
python evaluate.py run=FOLDER export=model.pt2    the model for other programs; or model.onnx

In Python, `load(FOLDER)` gives the model. The folder may come from a stranger: no code in it runs,
and nothing in it is changed.
"""

import os
import sys
from dataclasses import dataclass

sys.path.insert(0, __file__.removesuffix("evaluate.py"))  # python -P leaves it out

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from lab import command_line, files, launch, record, resume, schema
from lab.build import build, locate
from lab.errors import ConfigError, errors_as_sentences
from lab.options import check_export

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data import Augmentation, ImageSet
    from lab.machine import Machine

# torch, and all that imports it, is imported within functions: --help and refusals are immediate.


@hydra.main(version_base="1.3", config_path="config", config_name="evaluate")
def main(asked: DictConfig) -> None:
    launch.refuse_several("evaluate.py")
    if OmegaConf.is_missing(asked, "run"):
        raise ConfigError("run=FOLDER is missing: name the run folder to evaluate.")
    if not isinstance(asked.trust, bool):
        raise ConfigError(f"trust={asked.trust} is not allowed: it must be true or false.")
    cfg, result = read(asked.run, trust=asked.trust)
    facts = asked.dataset if "dataset" in asked else cfg.dataset
    check_same_shape(facts, cfg.dataset)
    if asked.export:
        check_export(path := files.located(str(asked.export)))
    trained = load(asked.run, "cpu" if asked.export else asked.device, asked.trust)
    if asked.export:
        export(path, trained)
    elif asked.images:
        names = asked.images if isinstance(asked.images, ListConfig) else [asked.images]
        classify([Path(os.path.expanduser(str(name))) for name in names], trained)
    else:
        is_chosen = any(word.startswith("data_dir=") for word in HydraConfig.get().overrides.task)
        data_dir = asked.data_dir if is_chosen else resume.data_dir(cfg.data_dir)
        test(facts, data_dir, result, trained)


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode, with the weights that were best on validation."""

    model: "nn.Module"
    cfg: DictConfig  # of the run
    machine: "Machine"
    augmentation: "Augmentation"

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(map(str, OmegaConf.to_container(self.cfg.dataset.classes)))

    def logits(self, image_set: "ImageSet") -> "Tensor":
        """`(N, num_classes)`, as the run itself computes them for its test accuracy."""
        from training import predict

        return predict(self.model, image_set, self.machine, self.augmentation)

    def probabilities(self, images: "Tensor") -> "Tensor":
        """Of each class, `(N, num_classes)`; `images` are uint8 `(N, C, H, W)`, not normalised."""
        import torch

        from data import ImageSet

        mean, std = tuple(self.cfg.dataset.mean), tuple(self.cfg.dataset.std)
        return self.logits(ImageSet(images, torch.zeros(len(images)), mean, std)).softmax(1)


def load(folder: str | Path, device: str = "auto", trust: bool = False) -> Trained:
    """The trained model of a run folder; `trust` it only if you wrote it yourself.

    Raises Refusal for a folder that is not a run's or has no usable `best.pt`.
    """
    cfg, _ = read(folder, trust)

    from data import Augmentation
    from lab import checkpoint
    from lab.machine import Machine
    from lab.model_check import materialise

    machine = Machine.prepare(device, cfg.precision, cfg.deterministic, cfg.seed)
    if cfg.model.get("pretrained"):  # the weights come from the folder: nothing to download
        cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False}})
    model = machine.place(materialise(build(cfg, "model"), cfg))
    checkpoint.load_weights(files.located(str(folder)) / "best.pt", model)
    return Trained(model.eval(), cfg, machine, Augmentation(**cfg.augmentation))


def read(folder: str | Path, trust: bool = False) -> tuple[DictConfig, dict[str, Any]]:
    """The checked config of a run and its result, without torch. Raises Refusal."""
    config, result = record.read_run(files.located(str(folder)), trusted=trust)
    cfg = schema.typed(config)
    schema.check(cfg)
    return cfg, result


def check_same_shape(facts: DictConfig, own: DictConfig) -> None:
    """Raises ConfigError for a dataset with other images or classes than the run's own."""
    for key in ("in_channels", "image_size", "num_classes"):
        if facts[key] != own[key]:
            raise ConfigError(
                f"dataset.{key}={facts[key]} is not what the run was trained on ({own[key]}): "
                "choose a dataset of the same shape."
            )


def test(facts: DictConfig, data_dir: str | None, result: dict[str, Any], trained: Trained) -> None:
    """Print the accuracy on the test images, that of each class, and the confusion matrix."""
    import torch

    import sources

    source = locate(facts, "source")
    policy = trained.cfg.on_bad_image
    _, test_set, found = sources.load(source, sources.data_root(data_dir), facts, policy)
    test_set = test_set[: trained.cfg.limit]
    predicted = trained.logits(test_set).argmax(1)
    accuracy = (predicted == test_set.labels).double().mean().item()
    print(f"test accuracy {accuracy:.2%} on {len(test_set)} images")
    if result.get("data_sha256") != found["data_sha256"]:
        print("these are not the images that the run was trained and tested on")
    elif result["status"] == "finished":
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


def classify(paths: list[Path], trained: Trained) -> None:
    """Print the class and the probabilities of each picture, and how it was adapted."""
    from lab.pictures import read_picture

    facts = trained.cfg.dataset
    for path in paths:
        images, changes = read_picture(path, facts.in_channels, facts.image_size, facts.margin)
        probabilities = trained.probabilities(images)[0].tolist()
        ranked = sorted(zip(probabilities, trained.classes, strict=True), reverse=True)
        print(f"{path}: {ranked[0][1]} ({', '.join(changes)})")
        print("  " + "  ".join(f"{name} {probability:.1%}" for probability, name in ranked))


def export(path: Path, trained: Trained) -> None:
    """Write the model to a file that other programs load, after a comparison of its logits."""
    from lab.export import export as write

    print(write(trained.model, trained.cfg, path))


if __name__ == "__main__":
    with errors_as_sentences():
        sys.argv = command_line.for_evaluate(sys.argv)
        main()
