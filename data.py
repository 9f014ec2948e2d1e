"""Image data as tensors in memory: split by seed, batched by index, augmented where they lie.

A small data set fits in memory whole, so no file is opened, no picture decoded and no worker
started while a model trains: a batch is an index into a uint8 tensor that is already on the device.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from config.errors import ConfigError


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels on one device: uint8 `(N, C, H, W)` and int64 `(N,)`.

    `mean` and `std` have one value per channel, on the scale where black is 0 and white is 1.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> "ImageSet":
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> "ImageSet":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def normalised(self) -> Tensor:
        """The images with zero mean and unit variance: float32 `(N, C, H, W)`."""
        scale, offset = _scale_and_offset(self.mean, self.std, self.images.device)
        return (self.images * scale).add_(offset)


@functools.cache  # a step must not wait for numbers on their way to the device
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """`(C, 1, 1)` each: pixels of 0 … 255 times `scale` plus `offset` are normalised."""
    means, stds = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
    return 1 / (255 * stds), -means / stds


@dataclass(frozen=True)
class Augmentation:
    """Random changes that leave the class of an image as it is; none at `shift=0, mirror=False`.

    `shift` is the largest move in pixels, drawn per image and axis, black coming in at the border.
    `mirror` flips half of the images left to right in one epoch and the other half in the next,
    which teaches more than chance does (Jordan 2024, https://arxiv.org/abs/2404.00498).
    """

    shift: int = 0
    mirror: bool = False


def num_batches(images: int, batch_size: int) -> int:
    """Batches in an epoch. The images left over wait for the next epoch, whose order differs."""
    return max(1, images // batch_size)


def epoch_size(images: int, skip_easy: float) -> int:
    """Images in an epoch: half of the share `skip_easy` sits out."""
    return images - int(skip_easy * images) // 2


@dataclass(frozen=True)
class Plan:
    """Every random choice of an epoch: which images, in which order, and what is done to each."""

    order: Tensor  # int64 (n,), indices of the images
    weights: Tensor  # float32 (n,), how much each counts in the loss
    moves: Tensor  # int64 (2, n), pixels of shift
    mirrored: Tensor  # bool (n,)


def plan_epoch(
    losses: Tensor, skip_easy: float, augmentation: Augmentation, seed: int, epoch: int
) -> Plan:
    """Draw an epoch from `seed` and its number, and from what the model finds hard.

    `losses` `(N,)` are the images' own, from when each was last trained on. Of the share
    `skip_easy` with the lowest, half sits out this time and the other half counts double, so that
    the gradient stays the same on average: InfoBatch, Qin et al. 2024,
    https://arxiv.org/abs/2303.04947.
    """
    generator = torch.Generator()
    count, device = len(losses), losses.device
    mirrored_first = torch.rand(count, generator=generator.manual_seed(seed)) < 0.5
    generator.manual_seed(seed * 2**20 + epoch)
    order = torch.randperm(count, generator=generator)
    easy = torch.zeros(count, dtype=torch.bool)
    if skip_easy:  # sorting takes as long as several steps of a small model
        easy[losses.cpu().argsort(stable=True)[: int(skip_easy * count)]] = True
    of_easy = easy[order].nonzero().squeeze(1)
    stays = torch.ones(count, dtype=torch.bool)
    stays[of_easy[: len(of_easy) // 2]] = False  # chance, since the order is
    order = order[stays]
    moves = torch.randint(2 * augmentation.shift + 1, (2, len(order)), generator=generator)
    mirrored = mirrored_first.logical_xor(torch.tensor(epoch % 2 == 1))[order]
    return Plan(*(part.to(device) for part in (order, 1.0 + easy[order], moves, mirrored)))


def batches(
    images: ImageSet, plan: Plan, batch_size: int, augmentation: Augmentation, start: int = 0
) -> Iterator[tuple[ImageSet, Tensor]]:
    """The augmented batches of an epoch from batch `start` on, and the weights `(B,)` of each.

    Batch number i is the same whether the epoch ran through or was taken up again at i.
    """
    for i in range(start, num_batches(len(plan.order), batch_size)):
        part = slice(i * batch_size, (i + 1) * batch_size)
        batch = images[plan.order[part]]
        if augmentation.shift:
            moved = shift(batch.images, plan.moves[:, part], augmentation.shift)
            batch = replace(batch, images=moved)
        if augmentation.mirror:
            flip = plan.mirrored[part, None, None, None]
            batch = replace(batch, images=torch.where(flip, batch.images.flip(3), batch.images))
        yield batch, plan.weights[part]


def shift(images: Tensor, moves: Tensor, limit: int) -> Tensor:
    """Images `(B, C, H, W)` moved by `moves` `(2, B)`, 0 … 2·limit, where `limit` is no move."""
    height, width = images.shape[2:]
    padded = F.pad(images, (limit, limit, limit, limit))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, moves, moves, H, W), a view
    return windows[torch.arange(len(images), device=images.device), :, moves[0], moves[1]]


def resized(pixels: Tensor, factor: float) -> Tensor:
    """`(B, C, H, W)` with sides of `factor` times the length. Training on small images first and on
    whole ones last costs less and ends as well: Touvron et al. 2019, https://arxiv.org/abs/1906.06423.
    """
    size = [round(side * factor) for side in pixels.shape[2:]]
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)


def split(images: ImageSet, val_size: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and validation images, drawn without overlap by `seed`.

    `val_size` below 1 is a fraction, from 1 on a number of images. At 0 the training images are
    validated on: it tells that a model can learn, never that it generalises.
    """
    if val_size == 0:
        return images, images
    count = val_count(len(images), val_size)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    order = order.to(images.images.device)
    return images[order[count:]], images[order[:count]]


def val_count(available: int, val_size: float) -> int:
    """Validation images out of `available`. Raises ConfigError where either part would be empty."""
    count = round(val_size * available) if val_size < 1 else int(val_size)
    if count >= available or (val_size and count < 1):
        raise ConfigError(
            f"val_size={val_size:g} takes {count} of the {available} training images: "
            "at least one must be left on either side. Give a fraction below 1 or a smaller number."
        )
    return count
