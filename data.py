"""What a model sees: images as tensors, the split, and the batches of every epoch.

Where a dataset fits in memory, no file is read while a model trains: a batch is an index into a
uint8 tensor that is already on the device. `lab/images.py` has the `ImageSet` of images and labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.augmentation import Augmentation, Changes
from lab.errors import ConfigError
from lab.group import Share
from lab.images import ImageSet, normalised


def split(
    image_set: ImageSet,
    val_size: float,
    seed: int,
    fold: int | None = None,
    folds: int | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Training and validation images, drawn by `seed` without overlap.

    `val_size` is a fraction below 1 or a number of images. At 0, validation is on the training
    images, which shows that a model learns, not that it generalises. With `folds`, as in
    cross-validation, the images are divided into as many parts, each class evenly, and part `fold`,
    counted from 0, is for validation. A dataset with validation images of its own keeps those.
    Raises ConfigError if either part would be empty.
    """
    available, own = len(image_set), image_set.val
    if own is not None and not folds:
        return replace(image_set, val=None), own
    if folds and (own is not None or folds > available):
        why = "validation images of its own" if own is not None else f"{available} training images"
        raise ConfigError(f"folds={folds} is not possible: the dataset has {why}. Set folds=null.")
    order = torch.randperm(available, generator=torch.Generator().manual_seed(seed))
    if folds:
        by_class = image_set.labels[order].argsort(stable=True)
        is_val = torch.zeros(available, dtype=torch.bool)
        is_val[by_class[fold::folds]] = True
        return image_set[order[~is_val]], image_set[order[is_val]]
    if val_size == 0:
        return image_set, image_set
    count = round(val_size * available) if val_size < 1 else int(val_size)
    if not 1 <= count < available:
        raise ConfigError(
            f"val_size={val_size:g} takes {count} of the {available} training images: at least "
            "one must be left on either side. Give a fraction below 1 or a smaller number."
        )
    return image_set[order[count:]], image_set[order[:count]]


@dataclass(frozen=True)
class Shrink:
    """Progressive resizing: the first `share` of the epochs sees images of `factor` times their
    side, which costs less and is as accurate (Touvron et al. 2019,
    https://arxiv.org/abs/1906.06423).
    """

    share: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class Curriculum:
    """What each epoch shows of the training images, and how.

    Of the share `skip_easy` of the images, those whose loss was lowest, an epoch skips one half and
    counts the other double, which leaves the expected gradient unchanged (InfoBatch: Qin et al.
    2024, https://arxiv.org/abs/2303.04947). The last sixteenth of the epochs shows all images.
    With `class_weights="balanced"`, all classes count the same, however many images they have.
    """

    epochs: int
    batch_size: int
    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    shrink: Shrink = Shrink()
    skip_easy: float = 0.0
    class_weights: str | None = None

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
        weights = 1.0 + easy[order]
        if self.class_weights == "balanced":
            weights *= balanced(train_set.labels.cpu())[order]
        order, weights = order.to(device), weights.to(device)
        return Epoch(self, number, start, train_set, order, weights, changes)

    def _skip_share(self, number: int) -> float:
        return self.skip_easy if number < self.epochs - self.epochs // 16 else 0.0


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch: normalised images, float32 `(B, C, H, W)`, targets, and the shares,
    float32 `(B,)`, that the images have in the loss. With several processes, each has its part.

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
        share = Share(len(self), min(size, len(self.order)), self.changes.augmentation.mixes)
        parts, weights = share.parts()[self.start :], share.weights(self.weights)[self.start :]
        order, all_changes = share.of(self.order), share.of(self.changes)
        batches = self.train_set.batches([order[part] for part in parts])
        for part, own_weights, (images, labels) in zip(parts, weights, batches, strict=True):
            changes = all_changes[part]
            images = changes.of_pixels(images)
            images = normalised(images, self.train_set.mean, self.train_set.std)
            if self.number < self.curriculum.small_epochs:
                images = resized(images, self.curriculum.shrink.factor)
            images, targets = changes.of_batch(images, labels, classes)
            yield share.own(images), share.own(targets), own_weights


def num_batches(num_images: int, batch_size: int) -> int:
    """The number of whole batches in an epoch, at least one; a random remainder is dropped."""
    return max(1, num_images // batch_size)


def balanced(labels: Tensor) -> Tensor:
    """The weight of each image: scikit-learn's `n / (classes * count)` of its class, float32."""
    counts = labels.bincount()
    return (len(labels) / (counts.count_nonzero() * counts))[labels]


def resized(images: Tensor, factor: float) -> Tensor:
    """Images `(B, C, H, W)` with sides of `factor` times the length."""
    size = [round(side * factor) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)
