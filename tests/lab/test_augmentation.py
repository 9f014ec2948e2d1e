"""Augmentation: what it does to images and labels, and that it is drawn for each image."""

import pytest
import torch
from conftest import composed, options
from omegaconf import OmegaConf
from torchvision.transforms.v2 import RandAugment

import data
from lab import augmentation, schema
from lab.augmentation import Augmentation

OPTIONS = options("augmentation")
TWO_CHANNELS = ("dataset.in_channels=2", "dataset.mean=[0,0]", "dataset.std=[1,1]")


def noise(count: int = 64, channels: int = 3, size: int = 12, classes: int = 10) -> data.ImageSet:
    """Random images with a mean of 0 and a std of 1, so that normalisation changes nothing."""
    generator = torch.Generator().manual_seed(0)
    shape = count, channels, size, size
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    scale = (0.0,) * channels, (1 / 255,) * channels
    return data.ImageSet(images, torch.arange(count) % classes, *scale, num_classes=classes)


def batches(image_set: data.ImageSet, changes: Augmentation, epoch=0, start=0, size=16) -> list:
    curriculum = data.Curriculum(99, size, 5, changes)
    return list(curriculum.epoch(epoch, image_set, torch.zeros(len(image_set)), start))


def chosen(*names: str) -> Augmentation:
    return Augmentation(**composed(f"augmentation=[{','.join(names)}]").augmentation)


def test_shift_moves_an_image_and_fills_the_gap_with_black():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).repeat(2, 1, 1, 1)
    moved = augmentation.shifted(image, torch.tensor([[1, 2], [1, 0]]), limit=1)
    assert torch.equal(moved[0], image[0])
    assert moved[1, 0].tolist() == [[0, 4, 5], [0, 7, 8], [0, 0, 0]]


@pytest.mark.parametrize("names", [*((name,) for name in OPTIONS), tuple(OPTIONS)], ids=str)
def test_an_epoch_resumed_at_any_step_has_the_same_batches(names):
    image_set, changes = noise(), chosen(*names)
    whole = batches(image_set, changes, epoch=3)
    for start in range(1, 4):
        for expected, found in zip(
            whole[start:], batches(image_set, changes, 3, start), strict=True
        ):
            assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize("name", sorted({*OPTIONS} - {"none", "standard", "flip"}))
def test_each_option_changes_images_differently_in_each_epoch(name):
    image_set, changes = noise(), chosen(name)
    plain = batches(image_set, Augmentation(), 3)
    first, second = batches(image_set, changes, 3), batches(image_set, changes, 4)
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(plain, first, strict=True))
    assert not torch.equal(first[0][0], second[0][0])


def test_options_are_combined():
    changes = chosen("crop_flip", "cutout", "mixup", "cutmix", "randaugment")
    assert changes == Augmentation(4, True, 0.5, 1.0, 1.0, 2, 9)
    assert chosen("strong", "cutmix") == Augmentation(1, False, cutmix=1.0)
    for images, targets, weights in batches(noise(), changes):
        assert images.shape == (16, 3, 12, 12) and images.isfinite().all()
        assert targets.shape == (16, 10) and torch.allclose(targets.sum(1), torch.ones(16))
        assert torch.equal(weights, torch.full((16,), 1 / 16))


def test_the_batches_are_those_of_before_where_nothing_new_is_asked_for():
    """The first pixels of a batch with moves and mirror images, as drawn by earlier versions."""
    images, labels, _ = batches(noise(), Augmentation(shift=2, mirror=True), epoch=1)[2]
    assert labels.tolist() == [8, 7, 7, 9, 7, 3, 7, 9, 5, 2, 3, 0, 5, 5, 3, 4]
    pixels = [109, 105, 124, 206, 56, 80, 20, 178, 135, 176, 45, 146, 204, 46, 248, 70]
    assert images[:, 0, 6, 6].round().int().tolist() == pixels


def test_cutout_sets_one_square_of_each_image_to_the_mean():
    for images, labels, _ in batches(noise(), Augmentation(cutout=0.5)):
        assert labels.ndim == 1
        hidden = (images == 0).all(1)  # by chance, a pixel is black once in 16 million
        rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
        assert torch.equal(rows * columns, hidden.sum((1, 2)))
        assert rows.min() >= 3 and rows.max() == 6 and columns.max() == 6
        assert len(hidden.unique(dim=0)) > 8


def test_mixup_averages_images_and_labels_by_the_same_share():
    image_set = noise(classes=64)
    plain, mixed = (batches(image_set, Augmentation(mixup=a)) for a in (0.0, 1.0))
    shares = []
    for (images, labels, _), (found, targets, _) in zip(plain, mixed, strict=True):
        share = targets[torch.arange(16), labels]
        shares.append(share)
        other = targets[torch.arange(16), labels.roll(1)]
        assert torch.allclose(share + other, torch.ones(16)) and (targets > 0).sum(1).max() == 2
        own = share[:, None, None, None]
        expected = own * images + (1 - own) * images.roll(1, 0)
        assert torch.allclose(found, expected, atol=1e-3)
    shares = torch.cat(shares)
    assert shares.min() >= 0.5 and len(shares.unique()) == 64  # the image's own is the larger
    assert shares.mean() == pytest.approx(0.75, abs=0.05)  # of Beta(1, 1), uniform


def test_cutmix_replaces_a_rectangle_and_its_share_of_the_label():
    image_set = noise(classes=64)
    plain, mixed = (batches(image_set, Augmentation(cutmix=a)) for a in (0.0, 1.0))
    counts = []
    for (images, labels, _), (found, targets, _) in zip(plain, mixed, strict=True):
        replaced = (found != images).any(1)
        assert torch.equal(
            (found == images.roll(1, 0)).all(1) | ~replaced, torch.ones(16, 12, 12) > 0
        )
        rows, columns = replaced.any(2).sum(1), replaced.any(1).sum(1)
        assert torch.equal(rows * columns, replaced.sum((1, 2)))
        counts.append(rows * columns)
        assert torch.allclose(1 - targets[torch.arange(16), labels], rows * columns / 144)
    counts = torch.cat(counts)
    assert len(counts.unique()) > 20 and 10 < counts.float().mean() < 80


def test_with_mixup_and_cutmix_each_image_has_one_of_them():
    image_set = noise(1024, classes=1024)
    ((images, _, _),) = batches(image_set, Augmentation(), size=1024)
    ((found, targets, _),) = batches(image_set, Augmentation(mixup=1, cutmix=1), size=1024)
    kept = (found == images).all(1).flatten(1).float().mean(1)  # of the pixels
    was_cut = (kept > 0) & (kept < 1)
    assert 350 < was_cut.sum() < 620 and 400 < (kept == 0).sum() < 650
    assert torch.allclose(targets.sum(1), torch.ones(1024))


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_changes_each_image_as_torchvision_would(channels, monkeypatch):
    """Image by image, torchvision's own class, made to draw what was drawn, gives the same."""
    images = noise(56, channels).images
    codes = torch.arange(56) % 28
    found = augmentation.distorted(images, codes, magnitude=12)
    names = list(RandAugment._AUGMENTATION_SPACE)
    for image, code, one in zip(images, codes.tolist(), found, strict=True):
        item = names[code // 2], RandAugment._AUGMENTATION_SPACE[names[code // 2]]
        monkeypatch.setattr(RandAugment, "_get_random_item", lambda self, _, item=item: item)
        sign = torch.tensor(0.9 - 0.8 * (code % 2))
        monkeypatch.setattr(torch, "rand", lambda *_, sign=sign: sign)
        assert torch.equal(RandAugment(num_ops=1, magnitude=12)(image), one), item[0]
    assert len(names) == 14


def test_small_images_of_the_first_epochs_are_cut_and_mixed_too():
    curriculum = data.Curriculum(
        4, 16, 0, chosen("cutout", "cutmix", "mixup"), data.Shrink(share=0.5, factor=0.5)
    )
    images, targets, _ = next(iter(curriculum.epoch(0, noise(), torch.zeros(64), 0)))
    assert images.shape == (16, 3, 6, 6) and targets.shape == (16, 10)


def test_a_prediction_is_averaged_over_mirror_images_alone():
    images = torch.rand(2, 3, 4, 4)
    assert len(chosen("mixup", "cutout", "randaugment").views(images)) == 1
    assert len(chosen("crop_flip").views(images)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augmentation.cutout=1.5"], "a share of the image's side"),
        (["augmentation.mixup=-1"], "mixup=-1.0 is not allowed: it must be 0 or more"),
        (["augmentation.cutmix=inf"], "cutmix=inf is not allowed"),
        (["augmentation.cutmix=1", "batch_size=1"], "two images of a batch are mixed"),
        (["augmentation.randaugment=15"], "0 to 14"),
        (["augmentation.magnitude=31"], "it must be 0 to 30"),
        (
            [*TWO_CHANNELS, "augmentation=randaugment"],
            "0 unless images have 1 or 3 channels",
        ),
    ],
)
def test_values_out_of_range_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        schema.check(composed(*words))


def test_configs_of_earlier_versions_mean_the_same():
    """The hash of a job, by which a sweep finds it again, is made of these values."""
    new, old = composed("augmentation=flip").augmentation, {"shift": 0, "mirror": True}
    flat = schema.flat({"augmentation": OmegaConf.to_container(new)})
    assert flat == {"augmentation.shift": "0", "augmentation.mirror": "true"}
    assert schema.typed({"augmentation": old}).augmentation == new
