"""The weights that a run starts from: those of another run, or of a file."""

import hashlib
import importlib
import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from lab import checkpoint, files, record
from lab.checkpoint import CheckpointError
from lab.errors import ConfigError
from lab.extras import how_to_install

log = logging.getLogger(__name__)
NESTED = ("model", "state_dict", "model_state_dict")  # where other programs keep the weights


def load(model: nn.Module, cfg: DictConfig) -> dict[str, Any]:
    """Copy the weights that `init_from` names into `model`. Returns which were taken, which tensors
    of the model were left as they were, and which weights of the file were not used.

    The head is left if the classes differ, the first convolution if the channels do. Raises Refusal
    for a file that cannot be read, and where anything else differs.
    """
    path, classes = files.located(cfg.init_from), None
    if path.is_dir():
        config, _ = record.read_run(path, trusted=True)  # nothing that it names is built
        path, classes = path / "best.pt", list(map(str, config["dataset"]["classes"]))
    weights = _read(path)
    own, facts = model.state_dict(), cfg.dataset
    head = head_of(model, facts.num_classes)
    is_other = classes is not None and classes != list(map(str, facts.classes))
    taken = [name for name in own if name in weights and _fits(weights[name], own[name])]
    if is_other:
        taken = [name for name in taken if name not in head]
    left = [name for name in own if name not in taken]
    changed = [
        name for name in left
        if name not in head and not _takes_other_channels(weights.get(name), own[name], facts)
    ]  # fmt: skip
    if changed or not taken:
        found = ", ".join(
            f"{name} {_differs(weights, own, name)}" for name in changed[:3] or left[:3]
        )
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise CheckpointError(
            f"init_from={cfg.init_from} holds the weights of another model: {found}{more}. Only "
            "the last layer may differ, and the channels of the first: set model= as it was there."
        )
    with torch.no_grad():
        for name in taken:
            own[name].copy_(weights[name])
    unused = [name for name in weights if name not in own]
    log.info("%s", _told(cfg.init_from, taken, left, unused))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": str(path), "sha256": digest, "taken": taken, "left": left, "unused": unused}


def head_of(model: nn.Module, num_classes: int) -> set[str]:
    """The names of the tensors of the layer that gives the logits: the last one that has weights of
    `num_classes` rows."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        tensors = dict(module.named_parameters(recurse=False))
        if any(weights.shape[:1] == (num_classes,) for weights in tensors.values()):
            names = {f"{prefix}.{name}".lstrip(".") for name in tensors}
    return names


def _read(path: Path) -> dict[str, Tensor]:
    """The weights in a file by their names. Raises CheckpointError; runs no code."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist: init_from must name the folder of a run that has finished an "
            "epoch, a .pt or a .safetensors file."
        )
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else None
    content = checkpoint.load(path) if content is None else content
    while inner := next(
        (content[key] for key in NESTED if isinstance(content.get(key), dict)), None
    ):
        content = inner
    if content and all(str(name).startswith("module.") for name in content):  # of DataParallel
        content = {name.removeprefix("module."): value for name, value in content.items()}
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no named weights: save model.state_dict().")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        read = importlib.import_module("safetensors.torch").load_file
    except ModuleNotFoundError:
        raise ConfigError(
            f"{path} needs the package safetensors: {how_to_install('safetensors')}"
        ) from None
    try:
        return read(path)
    except Exception as error:  # whatever a damaged file provokes
        raise CheckpointError(f"{path} is damaged: it cannot be read as safetensors.") from error


def _fits(value: Tensor, own: Tensor) -> bool:
    alike = value.dtype == own.dtype or (value.is_floating_point() and own.is_floating_point())
    return value.shape == own.shape and alike


def _takes_other_channels(value: Tensor | None, own: Tensor, facts: DictConfig) -> bool:
    """Whether `own` belongs to a convolution of the images, and `value` to one of images with
    another number of channels."""
    if value is None or own.ndim != 4 or value.ndim != 4 or own.shape[1] != facts.in_channels:
        return False
    return value.shape[0] == own.shape[0] and value.shape[2:] == own.shape[2:]


def _differs(weights: dict[str, Tensor], own: dict[str, Tensor], name: str) -> str:
    if name not in weights:
        return "is missing"
    return f"is {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"


def _told(source: str, taken: list[str], left: list[str], unused: list[str]) -> str:
    told = f"init_from={source}: {len(taken)} tensors taken"
    for names, what in ((left, "reinitialised"), (unused, "not used")):
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        told += f"; {what}: {', '.join(names[:4])}{more}" if names else ""
    return told
