"""The images and labels of a dataset object, whatever it holds, checked against the config."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab import decoded, items
from lab.data_files import OFFLINE, DataError
from lab.errors import Refusal
from lab.images import ImageFile, ImageSet, OnDisk

log = logging.getLogger(__name__)


def image_set(dataset: Any, facts: Any, root: Path, on_bad_image: str) -> tuple[ImageSet, int]:
    """The images of a dataset and the number of those that were left out.

    Raises DataError for images or labels that differ from `facts`.
    """
    try:
        found = _arrays(dataset) or _items(dataset, facts, root, on_bad_image)
    except Refusal as error:
        raise DataError(f"{type(dataset).__name__}: {error}") from error
    images, labels = found
    name = type(dataset).__name__
    if isinstance(images, Tensor):
        images = _channels_first(images, facts)
    said = (facts.in_channels, facts.image_size, facts.image_size)
    if (shape := tuple(images.shape[1:])) != said:
        raise DataError(
            f"{name} in {root} has images of (channels, height, width) = {shape}, but the config "
            f"says {said}: correct dataset.in_channels and dataset.image_size."
        )
    if labels.ndim != 1:
        raise DataError(
            f"{name} has labels of shape {tuple(labels.shape)}, but one number per image is "
            "needed: use a class whose targets are class numbers."
        )
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"{name} in {root} has {len(images)} images but {len(labels)} labels: "
            f"put the original files there, or use another dataset ({OFFLINE})."
        )
    labels = _from_zero(labels, facts, f"{name} in {root}")
    if isinstance(images, Tensor):
        images = _bytes(images, name).contiguous()
    else:  # in no order of classes, so that a limit shows all of them
        order = mixed(len(images))
        images, labels = images[order], labels[order]
    scale = tuple(facts.mean), tuple(facts.std)
    found = ImageSet(images, labels, *scale, num_classes=facts.num_classes)
    return found, _skipped(dataset, images)


def mixed(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _skipped(dataset: Any, images: Tensor | OnDisk) -> int:
    return len(dataset) - len(images) if hasattr(dataset, "__len__") else 0


def _arrays(dataset: Any) -> tuple[Tensor | OnDisk, Tensor] | None:
    """`data` and `targets`, which some call `labels`; None if the items must be used, since
    there are no such arrays, or none of the right shape."""
    images = getattr(dataset, "data", None)
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    has_items = hasattr(type(dataset), "__getitem__") and hasattr(type(dataset), "__len__")
    try:
        images = images if isinstance(images, OnDisk) else torch.as_tensor(images)
        labels = torch.as_tensor(labels)
    except Exception as error:  # whatever torch raises for ragged lists, words or None
        if has_items:
            return None
        raise Refusal(
            "it has neither data and targets of numbers, nor items: use a dataset for "
            "classification whose items can be counted."
        ) from error
    if has_items and (labels.ndim != 1 or len(images.shape) not in (3, 4)):
        return None
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise Refusal("its targets are not whole numbers: use a dataset for classification.")
    return images, labels.long()


def _items(dataset: Any, facts: Any, root: Path, on_bad_image: str) -> tuple[OnDisk, Tensor]:
    """The items, decoded into a file that later runs read if it is known when it has to change."""
    channels, size = facts.in_channels, facts.image_size
    print_of_files = items.fingerprint(dataset)
    folder = root / "decoded" / f"{type(dataset).__name__}-{channels}x{size}"
    if print_of_files:
        folder /= hashlib.sha256(print_of_files.encode()).hexdigest()[:16]
    fill = items.fill_from_items(dataset, channels, size)
    found = decoded.decoded(
        folder if print_of_files else None, print_of_files or "", len(dataset), channels, size, fill
    )
    names = [f"item {index}" for index in range(len(dataset))] if found.bad else []
    decoded.check_bad(names, found.bad, root, on_bad_image)
    rows = torch.tensor([row for row in range(len(dataset)) if row not in found.bad])
    labels = torch.tensor(found.labels or [], dtype=torch.int64)
    return OnDisk(ImageFile(found.path, found.sha256), rows.long()), labels[rows.long()]


def _channels_first(images: Tensor, facts: Any) -> Tensor:
    if images.ndim == 3:  # grey: (N, H, W)
        images = images.unsqueeze(1)
    elif images.shape[-1] == facts.in_channels != images.shape[1]:  # as pictures have it
        images = images.permute(0, 3, 1, 2)
    return images.transpose(2, 3) if getattr(facts, "transpose", False) else images


def _bytes(images: Tensor, name: str) -> Tensor:
    """As uint8. Raises DataError for values that this would change."""
    if images.dtype != torch.uint8:
        whole = images.to(torch.uint8)
        if not torch.equal(whole.to(images.dtype), images):
            raise DataError(
                f"{name} has images with values of {images.min():g} to {images.max():g} "
                f"({str(images.dtype).removeprefix('torch.')}), but whole numbers from 0 to 255 "
                "are needed: convert them in its class."
            )
        images = whole
    return images


def _from_zero(labels: Tensor, facts: Any, name: str) -> Tensor:
    """The labels after `target_offset`. Raises DataError for one that is not a class."""
    offset, classes = getattr(facts, "target_offset", 0) or 0, facts.num_classes
    shifted = labels - offset
    least, most = int(shifted.min()), int(shifted.max())
    if least >= 0 and most < classes:
        return shifted
    after = f" after target_offset={offset}" if offset else ""
    sentence = (
        f"{name} has labels {least} to {most}{after}, but the config says "
        f"dataset.num_classes={classes}, which allows 0 to {classes - 1}"
    )
    wanted = int(labels.min())
    if wanted != offset and int(labels.max()) - wanted < classes:
        sentence += f": if {wanted} is the first class, set dataset.target_offset={wanted}"
    raise DataError(f"{sentence}.")
