"""Checkpoint files: written whole, read without running anything, checked before use."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lab import files, reading
from lab.errors import Refusal

# The figures of an epoch: the columns of metrics.csv.
EPOCH_COLUMNS = (
    *("epoch", "train_loss", "val_loss", "val_accuracy"),
    *("lr", "seconds", "images_per_second"),
)
# More than any run can have, and little enough that sums of such figures are finite.
MOST, MOST_SECONDS, MOST_IMAGES_PER_SECOND = 1e40, 1e10, 1e13


class CheckpointError(Refusal):
    """A checkpoint that cannot be used; the message says why."""


def save(content: dict[str, Any], path: Path) -> None:
    """Write tensors and primitives to `path`, whole or not at all.

    Raises OSError, naming `path`, if the disk is full or the folder read-only.
    """
    buffer = io.BytesIO()  # torch's own error, when it writes to a full disk, does not say so
    torch.save(content, buffer)
    with files.replacing(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Runs no code from it. Raises CheckpointError.

    Its tensors are views of memory whose extent the file decides: copy their values into tensors of
    one's own (`own_copy`), after a check of their shapes, before anything is computed with them.
    """
    try:
        with reading.checkpoint(path) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
        reading.check_size(content)
        content = _own_dictionaries(content)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist: a run writes it when its first epoch ends."
        ) from error
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is damaged, or holds more than tensors and "
            "primitives."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of script.py.")
    return content


def _own_dictionaries(value: Any) -> Any:
    """A value of a checkpoint with plain dictionaries for ordered ones, of which a file may replace
    attributes: `keys`, for instance. Raises CheckpointError for a tensor without a shape."""
    if isinstance(value, dict):
        return {key: _own_dictionaries(item) for key, item in dict.items(value)}
    if type(value) in (list, tuple):
        return type(value)(map(_own_dictionaries, value))
    if isinstance(value, Tensor) and value.is_nested:
        raise CheckpointError("it holds a nested tensor.")
    return value


def load_weights(path: Path, model: nn.Module) -> None:
    """Load the weights of `best.pt`. Raises CheckpointError for those of another model."""
    weights = load(path).get("model", {})
    check_weights(weights, model.state_dict(), path)
    model.load_state_dict(weights)


def check_weights(weights: Any, own: dict[str, Tensor], path: Path) -> None:
    """Raises CheckpointError for the weights of another model, naming what differs from `own`."""
    _require(isinstance(weights, dict), path, "its weights have no names")
    differences = [f"{name} is missing" for name in sorted(own.keys() - weights.keys())]
    differences += [
        f"{name} is unexpected" for name in sorted(map(str, weights.keys() - own.keys()))
    ]
    differences += [
        f"{name} {_described(weights[name])} instead of {_described(own[name])}"
        for name in sorted(own.keys() & weights.keys())
        if not _alike(weights[name], own[name])
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(
            f"{path} is a checkpoint of another model: {', '.join(differences[:3])}{more}."
        )


def check_optimizer(found: Any, optimizer: Optimizer, path: Path) -> None:
    """Raises CheckpointError for a state that `optimizer` cannot have: its kernels would read past
    the end of a tensor that is too short.

    A step with a gradient of zeros shows what state it can have. This step changes the weights:
    load them afterwards. The state of a parameter without a gradient is empty.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    expected = state_of(optimizer)
    valid = isinstance(found, dict) and found.keys() == expected.keys()
    _require(valid, path, "its optimizer state belongs to other parameters")
    for index, own in expected.items():
        state = found[index]
        valid = isinstance(state, dict) and (not state or state.keys() == own.keys())
        _require(valid, path, "its optimizer is of another type")
        for name, value in state.items():
            where = f"its optimizer has {name} {_described(value)} for {_described(own[name])}"
            _require(_alike(value, own[name]), path, where)


def state_of(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """The state of each parameter by its number; empty for one that never had a gradient."""
    content = optimizer.state_dict()
    numbers = [number for group in content["param_groups"] for number in group["params"]]
    return {number: content["state"].get(number, {}) for number in numbers}


def own_copy(value: Any, own: Tensor | None = None) -> Any:
    """A value of a checkpoint that shares no memory with it: tensors, also those in lists and
    dictionaries, are copied into new ones, with the device and the strides of `own` if given."""
    if isinstance(value, Tensor):
        like = torch.empty(value.shape, dtype=value.dtype) if own is None else own
        return torch.empty_like(like).copy_(value)
    if isinstance(value, dict):
        return {key: own_copy(item) for key, item in value.items()}
    return type(value)(map(own_copy, value)) if isinstance(value, list | tuple) else value


def own_copies(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own_copy` of each value, in the place of the one in `own` of the same name."""
    return {
        name: own_copy(value, own[name] if isinstance(value, Tensor) else None)
        for name, value in values.items()
    }


def check_progress(saved: dict[str, Any], path: Path) -> None:
    """Raises CheckpointError for figures of epochs and steps that no run can have."""
    history, losses, steps = saved["history"], saved["losses"], saved["steps"]
    of_images = saved["image_losses"]
    valid = _is_plain(of_images) and of_images.dtype == torch.float32
    _require(valid and of_images.ndim == 1, path, "it does not have one loss per image")
    most = len(of_images)  # steps in an epoch, with one image each
    valid = isinstance(steps, list) and all(type(n) is int and 1 <= n <= most for n in steps)
    _require(valid, path, f"steps={steps!r:.60} is invalid")
    valid = isinstance(history, list) and len(history) <= len(steps)
    _require(valid, path, "its history is not a list of epochs")
    for number, row in enumerate(history, 1):
        valid = isinstance(row, dict) and row.keys() == set(EPOCH_COLUMNS)
        valid = valid and all(_is_figure(value) for value in row.values())
        valid = valid and row["epoch"] == number and 0 <= row["val_accuracy"] <= 1
        valid = valid and 0 <= row["seconds"] <= MOST_SECONDS
        valid = valid and 0 <= row["images_per_second"] <= MOST_IMAGES_PER_SECOND
        _require(valid, path, f"epoch {number} of its history is invalid")
    valid = _is_plain(losses) and losses.dtype == torch.float32 and losses.ndim == 2
    valid = valid and len(losses) <= [*steps, 0][len(history)] and losses.numel() <= most
    _require(valid, path, "its losses do not match its steps")
    seconds = saved["seconds"]
    valid = _is_figure(seconds) and 0 <= seconds <= MOST_SECONDS
    _require(valid, path, f"seconds={seconds!r:.60} is invalid")


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor of the kind that `save` writes."""
    if not isinstance(value, Tensor) or value.requires_grad:
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _is_figure(value: Any) -> bool:
    """Whether a value is a number that a run can have: losses are of float32."""
    return type(value) in (int, float) and abs(value) <= MOST


def _alike(value: Any, own: Any) -> bool:
    """Whether two tensors agree in shape, type and layout; two other values, in their type."""
    if isinstance(value, Tensor) and isinstance(own, Tensor):
        kinds = [(tensor.shape, tensor.dtype, tensor.layout) for tensor in (value, own)]
        return kinds[0] == kinds[1] and _is_plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return type(value) is type(own) and _is_figure(value)
    return type(value) is type(own)


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of {type(value).__name__}"
    if value.requires_grad:
        return "with a gradient"
    kind = "" if value.dtype == torch.float32 else f" of {str(value.dtype).removeprefix('torch.')}"
    return f"{tuple(value.shape)}{kind}"


def _require(holds: bool, path: Path, found: str) -> None:
    if not holds:
        raise CheckpointError(f"{path} is not a checkpoint of this run: {found}.")
