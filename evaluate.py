"""Evaluate a run: its test accuracy class by class, or the classes of your own pictures.

python evaluate.py last                          the newest run in runs/; or FOLDER, or run=FOLDER
python evaluate.py FOLDER dataset=kmnist
python evaluate.py FOLDER report=FOLDER/report   a page to look at, and predictions.csv
python evaluate.py FOLDER images=[three.png,scans/] predictions=found.csv
python evaluate.py FOLDER export=model.pt2       the model for other programs; or model.onnx

In Python, `load(FOLDER)` gives the model. The folder may come from a stranger: no code in it runs,
and nothing in it is changed.
"""

import sys
from dataclasses import dataclass

sys.path.insert(0, __file__.removesuffix("evaluate.py"))  # python -P leaves it out

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from lab import command_line, files, launch, newest, record, resume, schema
from lab.build import build, locate
from lab.errors import ConfigError, Refusal, errors_as_sentences
from lab.outputs import check_outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data import Augmentation, ImageSet
    from lab.machine import Machine
    from lab.predictions import Evaluated

# torch, and all that imports it, is imported within functions: --help and refusals are immediate.


@hydra.main(version_base="1.3", config_path="config", config_name="evaluate")
def main(asked: DictConfig) -> None:
    launch.refuse_several("evaluate.py")
    if OmegaConf.is_missing(asked, "run"):
        raise ConfigError(
            "run=FOLDER is missing: name the run folder to evaluate; last is the newest in runs/."
        )
    if not isinstance(asked.trust, bool):
        raise ConfigError(f"trust={asked.trust} is not allowed: it must be true or false.")
    cfg, result = read(asked.run, trust=asked.trust)
    facts = asked.dataset if "dataset" in asked else cfg.dataset
    check_same_shape(facts, cfg.dataset)
    outputs = check_outputs(asked)
    trained = load(asked.run, "cpu" if asked.export else asked.device, asked.trust)
    if asked.export:
        export(outputs["export"], trained)
    elif asked.images:
        names = asked.images if isinstance(asked.images, ListConfig) else [asked.images]
        classify(list(map(str, names)), trained, outputs.get("predictions"))
    else:
        is_chosen = any(word.startswith("data_dir=") for word in HydraConfig.get().overrides.task)
        data_dir = asked.data_dir if is_chosen else resume.data_dir(cfg.data_dir)
        write(test(facts, data_dir, result, trained), outputs, files.located(asked.run))


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

    def image_set(self, images: "Tensor") -> "ImageSet":
        """Images without labels, uint8 `(N, C, H, W)`, not normalised."""
        import torch

        from data import ImageSet

        mean, std = tuple(self.cfg.dataset.mean), tuple(self.cfg.dataset.std)
        return ImageSet(images, torch.zeros(len(images)), mean, std)

    def probabilities(self, images: "Tensor") -> "Tensor":
        """Of each class, `(N, num_classes)`; `images` are uint8 `(N, C, H, W)`, not normalised."""
        return self.logits(self.image_set(images)).softmax(1)


def load(folder: str | Path, device: str = "auto", trust: bool = False) -> Trained:
    """The trained model of a run folder, or of the `last` one; `trust` it only if it is yours.

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
    checkpoint.load_weights(newest.run_folder(str(folder)) / "best.pt", model)
    return Trained(model.eval(), cfg, machine, Augmentation(**cfg.augmentation))


def read(folder: str | Path, trust: bool = False) -> tuple[DictConfig, dict[str, Any]]:
    """The checked config of a run and its result, without torch. Raises Refusal."""
    config, result = record.read_run(newest.run_folder(str(folder)), trusted=trust)
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


def test(
    facts: DictConfig, data_dir: str | None, result: dict[str, Any], trained: Trained
) -> "Evaluated":
    """Print the accuracy on the test images, that of each class, and the confusion matrix."""
    import sources
    from lab.confusion import summary
    from lab.predictions import Evaluated, Predictions

    source, policy = locate(facts, "source"), trained.cfg.on_bad_image
    _, test_set, found = sources.load(source, sources.data_root(data_dir), facts, policy)
    test_set = test_set[: trained.cfg.limit]
    classes = list(map(str, OmegaConf.to_container(facts.classes)))
    predictions = Predictions(trained.logits(test_set), classes, test_set.names(), test_set.labels)
    print(f"test accuracy {predictions.accuracy:.2%} on {len(test_set)} images")
    is_own = result.get("data_sha256") == found["data_sha256"]
    if not is_own:
        print("these are not the images that the run was trained and tested on")
    elif result["status"] == "finished":
        print(f"the run recorded {result['test_accuracy']:.2%}")
    print(f"\n{summary(predictions)}")
    option = HydraConfig.get().runtime.choices.get("dataset") or result.get("dataset", "?")
    return Evaluated(predictions, test_set, option, is_own)


def write(tested: "Evaluated", outputs: dict[str, Path], run: Path) -> None:
    """Write the predictions and the report of the run folder `run`, if they were asked for."""
    if path := outputs.get("predictions"):
        tested.predictions.write(path)
        print(f"\n{path}: {len(tested.predictions)} images")
    if folder := outputs.get("report"):
        from lab import report  # which imports scikit-learn and matplotlib

        print(f"\nreport: {report.write(folder, run, tested)}")


def classify(names: list[str], trained: Trained, path: Path | None) -> None:
    """Print the classes of pictures, with their probabilities, and how each picture was adapted;
    write the predictions to `path`, if there is one.

    Pictures that cannot be read are reported, and the rest go on; then Refusal is raised.
    """
    import torch

    from lab import pictures
    from lab.predictions import Predictions

    logits, shown, failed = [], [], []
    for paths, images, changes in pictures.batches(names, trained.cfg.dataset, failed):
        logits.append(trained.logits(trained.image_set(images)))
        batch = Predictions(logits[-1], trained.classes, paths)
        shown += paths
        for line in map(pictures.said_of, paths, changes, map(batch.ranked, range(len(paths)))):
            print(line)
    if path and shown:
        Predictions(torch.cat(logits), trained.classes, shown).write(path)
        print(f"{path}: {len(shown)} pictures")
    if failed:
        named = ", ".join(failed[:3]) + (", …" if len(failed) > 3 else "")
        verb = "was" if len(failed) == 1 else "were"
        total = len(failed) + len(shown)
        raise Refusal(f"{len(failed)} of {total} {verb} not classified: {named}.")


def export(path: Path, trained: Trained) -> None:
    """Write the model to a file that other programs load, after a comparison of its logits."""
    from lab.export import export as write

    print(write(trained.model, trained.cfg, path))


if __name__ == "__main__":
    with errors_as_sentences():
        sys.argv = command_line.for_evaluate(sys.argv)
        main()
