"""Augmentation: random changes of the training images, drawn for each image.

Everything is drawn before an epoch begins, so an epoch that is resumed in its middle has the same
batches as one that was not interrupted.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Which changes there are; with the defaults, none.

    `shift` is the largest move in pixels, drawn per image and axis, with black at the border.
    `mirror` flips half of the images left to right in one epoch and the other half in the next,
    which works better than at random (Jordan 2024, https://arxiv.org/abs/2404.00498).
    `randaugment` of torchvision's operations are applied to each image in turn, with a `magnitude`
    of 0 … 30 (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719).
    `cutout` sets a square to the mean, whose side is this share of the image's and whose centre is
    anywhere in it (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).
    `mixup` averages an image and another one of the batch, with shares drawn from Beta(α, α), α
    being its value (Zhang et al. 2018, https://arxiv.org/abs/1710.09412). `cutmix` instead replaces
    a rectangle by that of the other image (Yun et al. 2019, https://arxiv.org/abs/1905.04899). With
    both, each image has one of them, at random.
    """

    shift: int = 0
    mirror: bool = False
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    magnitude: int = 9

    def views(self, images: Tensor) -> list[Tensor]:
        """What to average a prediction over: a model trained on mirror images is shown both."""
        return [images, images.flip(3)] if self.mirror else [images]

    @property
    def mixes(self) -> bool:
        """Whether an image is mixed with the one before it in its batch."""
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, mirrored: Tensor, generator: torch.Generator, device: Any) -> "Changes":
        """The changes of the images of an epoch; `mirrored` `(n,)` says which ones to flip."""
        count = len(mirrored)
        drawn = {"moves": torch.randint(2 * self.shift + 1, (2, count), generator=generator)}
        drawn["mirrored"] = mirrored
        if self.cutout:
            drawn["cutout_centre"] = torch.rand(2, count, generator=generator)
        if self.mixes:
            seed = int(torch.randint(2**62, (), generator=generator))
            beta = numpy.random.default_rng(seed).beta  # torch's takes no generator
            shares = [
                torch.from_numpy(beta(alpha or 1, alpha or 1, count)).float()
                for alpha in (self.mixup, self.cutmix)
            ]
            # For mixup, which image comes first makes no difference. It gets the larger share, so
            # that its loss is mainly its own, as `skip_easy` needs it.
            drawn["mixup_share"] = torch.maximum(shares[0], 1 - shares[0])
            drawn["cutmix_share"] = shares[1]
            drawn["cutmix_centre"] = torch.rand(2, count, generator=generator)
            odds = (self.cutmix > 0) / ((self.cutmix > 0) + (self.mixup > 0))
            drawn["is_cut"] = torch.rand(count, generator=generator) < odds
        drawn = {name: values.to(device) for name, values in drawn.items()}
        if self.randaugment:  # stays on the CPU, which sorts the images by their operation
            size = self.randaugment, count
            drawn["operations"] = torch.randint(28, size, generator=generator)
        return Changes(self, drawn)


@dataclass(frozen=True)
class Changes:
    """What was drawn for n images: tensors whose last axis is that of the images."""

    augmentation: Augmentation
    drawn: dict[str, Tensor]

    def __getitem__(self, part: slice | Tensor) -> "Changes":
        return Changes(self.augmentation, {name: v[..., part] for name, v in self.drawn.items()})

    def of_pixels(self, images: Tensor) -> Tensor:
        """Move, flip and distort uint8 images `(B, C, H, W)`."""
        if self.augmentation.shift:
            images = shifted(images, self.drawn["moves"], self.augmentation.shift)
        if self.augmentation.mirror:
            flip = self.drawn["mirrored"][:, None, None, None]
            images = torch.where(flip, images.flip(3), images)
        for codes in self.drawn.get("operations", ()):
            images = distorted(images, codes, self.augmentation.magnitude)
        return images

    def of_batch(self, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Cut and mix normalised images `(B, C, H, W)`. Returns them and their targets, as
        cross-entropy takes them: the labels `(B,)` or, once mixed, shares of `classes`
        `(B, classes)`."""
        size = images.shape[2:]
        if side := self.augmentation.cutout:
            hidden = rectangles(self.drawn["cutout_centre"], torch.tensor(side), size)
            images = images.masked_fill(hidden, 0.0)
        if not self.augmentation.mixes:
            return images, labels
        own = self.drawn["mixup_share"][:, None, None, None]
        if self.augmentation.cutmix:
            sides = (1 - self.drawn["cutmix_share"]).sqrt()
            cut = ~rectangles(self.drawn["cutmix_centre"], sides, size)
            own = torch.where(self.drawn["is_cut"][:, None, None, None], cut, own)
        images = torch.lerp(images.roll(1, 0), images, own)  # the batch is in random order
        targets = F.one_hot(labels, classes).float()
        return images, torch.lerp(targets.roll(1, 0), targets, own.mean((1, 2, 3))[:, None])


def shifted(images: Tensor, moves: Tensor, limit: int) -> Tensor:
    """Move images `(B, C, H, W)` by `moves` `(2, B)`, each 0 … 2·limit; `limit` does not move."""
    height, width = images.shape[2:]
    padded = F.pad(images, (limit, limit, limit, limit))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, moves, moves, H, W), a view
    return windows[torch.arange(len(images), device=images.device), :, moves[0], moves[1]]


def rectangles(centres: Tensor, sides: Tensor, size: tuple[int, int]) -> Tensor:
    """Which pixels `(B, 1, H, W)` are in a rectangle around each of `centres` `(2, B)`, 0 … 1, as
    far as it is within the image. `sides`, one for all or `(B,)`, are shares of the image's."""
    inside = []
    for centre, length in zip(centres, size, strict=True):
        reach = (sides * length).round()
        first = (centre * length).floor() - (reach / 2).floor()
        pixels = torch.arange(length, device=centres.device)
        inside.append((pixels >= first[:, None]) & (pixels < (first + reach)[:, None]))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def distorted(images: Tensor, codes: Tensor, magnitude: int) -> Tensor:
    """Apply one of RandAugment's operations to each of uint8 `images` `(B, C, H, W)`.

    An operation of torchvision has the same strength for all images that it is given, and in
    RandAugment only its sign varies: `codes` `(B,)`, on the CPU, are 2·operation + sign, and images
    of the same code are changed together.
    """
    operations, apply, options = _randaugment(magnitude)
    changed = torch.empty_like(images)
    for code in codes.unique().tolist():
        index = (codes == code).nonzero().squeeze(1).to(images.device)
        name, (strengths, is_signed) = operations[code // 2]
        values = strengths(31, *images.shape[2:])
        strength = 0.0 if values is None else float(values[magnitude])
        strength *= -1 if is_signed and code % 2 else 1
        changed[index] = apply(images[index], name, strength, **options)
    return changed


@cache
def _randaugment(magnitude: int) -> tuple[list, Any, dict[str, Any]]:
    """The operations of torchvision's RandAugment, the function that applies one, its options."""
    from torchvision.transforms.v2 import RandAugment  # takes seconds

    policy = RandAugment(magnitude=magnitude)
    options = {"interpolation": policy.interpolation, "fill": policy._fill}
    return (
        list(policy._AUGMENTATION_SPACE.items()),
        policy._apply_image_or_video_transform,
        options,
    )
