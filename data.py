"""What a model sees: images as tensors, the split, and the batches of every epoch.

A dataset fits in memory, so no file is read while a model trains: a batch is an index into a uint8
tensor that is already on the device.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.augmentation import Augmentation, Changes
from lab.errors import ConfigError


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels on one device: uint8 `(N, C, H, W)` and int64 `(N,)`.

    `mean` and `std` have one value per channel, on a scale where black is 0 and white is 1. The
    labels are below `num_classes`, which only mixup and cutmix need.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> "ImageSet":
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> "ImageSet":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def normalised(self) -> Tensor:
        """The images with zero mean and unit variance: float32 `(N, C, H, W)`."""
        return normalised(self.images, self.mean, self.std)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 images `(B, C, H, W)` with zero mean and unit variance, as float32."""
    scale, offset = _scale_and_offset(mean, std, images.device)
    return (images * scale).add_(offset)


@functools.cache  # so that no step waits for these numbers to reach the device
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """`(C, 1, 1)` each: pixels of 0 … 255 times `scale` plus `offset` are normalised."""
    means, stds = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
    return 1 / (255 * stds), -means / stds


def split(image_set: ImageSet, val_size: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and validation images, drawn by `seed` without overlap.

    `val_size` is a fraction below 1 or a number of images. At 0, validation is on the training
    images, which shows that a model learns, not that it generalises. Raises ConfigError if either
    part would be empty.
    """
    if val_size == 0:
        return image_set, image_set
    available = len(image_set)
    count = round(val_size * available) if val_size < 1 else int(val_size)
    if not 1 <= count < available:
        raise ConfigError(
            f"val_size={val_size:g} takes {count} of the {available} training images: at least "
            "one must be left on either side. Give a fraction below 1 or a smaller number."
        )
    order = torch.randperm(available, generator=torch.Generator().manual_seed(seed))
    return image_set[order[count:]], image_set[order[:count]]


@dataclass(frozen=True)
class Shrink:
    """Progressive resizing: the first `share` of the epochs sees images of `factor` their side,
    which costs less and is as accurate (Touvron et al. 2019, https://arxiv.org/abs/1906.06423).
    """

    share: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class Curriculum:
    """What each epoch shows of the training images, and how.

    Of the share `skip_easy` of the images, those whose loss was lowest, an epoch skips one half and
    counts the other double, which leaves the expected gradient unchanged (InfoBatch: Qin et al.
    2024, https://arxiv.org/abs/2303.04947). The last sixteenth of the epochs shows all images.
    """

    epochs: int
    batch_size: int
    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    shrink: Shrink = Shrink()
    skip_easy: float = 0.0

    @property
    def small_epochs(self) -> int:
        """The number of epochs, counted from the first, that show smaller images."""
        return int(self.shrink.share * self.epochs)

    def sizes(self, image_size: int) -> list[int]:
        """The sides of the images that are shown; the first is `image_size`."""
        small = [round(image_size * self.shrink.factor)] if self.small_epochs else []
        return [image_size, *small]

    def steps(self, num_images: int) -> list[int]:
        """The number of batches in each epoch over `num_images` training images."""
        easy = [int(self._skip_share(epoch) * num_images) for epoch in range(self.epochs)]
        return [num_batches(num_images - count // 2, self.batch_size) for count in easy]

    def epoch(self, number: int, train_set: ImageSet, image_losses: Tensor, start: int) -> "Epoch":
        """Epoch `number`, counted from 0, from batch `start` on.

        It follows from the seed, its number and `image_losses` `(N,)`, so a resumed epoch has the
        same batches as one that was not interrupted.
        """
        count, generator = len(train_set), torch.Generator()
        mirrored_first = torch.rand(count, generator=generator.manual_seed(self.seed)) < 0.5
        generator.manual_seed(self.seed * 2**20 + number)
        order = torch.randperm(count, generator=generator)
        easy = torch.zeros(count, dtype=torch.bool)
        if share := self._skip_share(number):  # sorting takes as long as several small steps
            easy[image_losses.cpu().argsort(stable=True)[: int(share * count)]] = True
        positions = easy[order].nonzero().squeeze(1)
        shown = torch.ones(count, dtype=torch.bool)
        shown[positions[: len(positions) // 2]] = False  # a random half of the easy ones
        order = order[shown]
        mirrored = mirrored_first.logical_xor(torch.tensor(number % 2 == 1))[order]
        device = image_losses.device
        changes = self.augmentation.draw(mirrored, generator, device)
        weights = (1.0 + easy[order]).to(device)
        return Epoch(self, number, start, train_set, order.to(device), weights, changes)

    def _skip_share(self, number: int) -> float:
        return self.skip_easy if number < self.epochs - self.epochs // 16 else 0.0


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch: normalised images, float32 `(B, C, H, W)`, targets, and weights,
    float32 `(B,)`, by which the images count in the loss.

    The targets are what cross-entropy takes: labels, int64 `(B,)`, or, where mixup or cutmix blends
    two images, the shares of their classes, float32 `(B, num_classes)`.
    """

    curriculum: Curriculum
    number: int
    start: int  # the first batch to show
    train_set: ImageSet
    order: Tensor  # int64 (n,), indices into train_set
    weights: Tensor  # float32 (n,)
    changes: Changes  # of the n images

    def __len__(self) -> int:
        return num_batches(len(self.order), self.curriculum.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        size, classes = self.curriculum.batch_size, self.train_set.num_classes
        for i in range(self.start, len(self)):
            part = slice(i * size, (i + 1) * size)
            index, changes = self.order[part], self.changes[part]
            images, labels = self.train_set.images[index], self.train_set.labels[index]
            images = changes.of_pixels(images)
            images = normalised(images, self.train_set.mean, self.train_set.std)
            if self.number < self.curriculum.small_epochs:
                images = resized(images, self.curriculum.shrink.factor)
            images, targets = changes.of_batch(images, labels, classes)
            yield images, targets, self.weights[part]


def num_batches(num_images: int, batch_size: int) -> int:
    """The number of whole batches in an epoch, at least one; a random remainder is dropped."""
    return max(1, num_images // batch_size)


def resized(images: Tensor, factor: float) -> Tensor:
    """Images `(B, C, H, W)` with sides of `factor` times the length."""
    size = [round(side * factor) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)
