from dataclasses import replace

import numpy
import pytest
import torch

import data
from lab.errors import ConfigError
from lab.images import ImageFile, OnDisk


def read_epoch(image_set, batch_size, augmentation=None, epoch=0, start=0):
    """Return the batches of an epoch as (images, labels), with the normalisation undone."""
    augmentation = augmentation or data.Augmentation()
    curriculum = data.Curriculum(99, batch_size, 5, augmentation)
    shown = curriculum.epoch(epoch, image_set, torch.zeros(len(image_set)), start)
    mean, std = image_set.mean[0], image_set.std[0]
    return [
        ((255 * (images * std + mean)).round().to(torch.uint8), labels)
        for images, labels, _ in shown
    ]


@pytest.fixture
def numbered() -> data.ImageSet:
    """A hundred images; every pixel of image i is i, and so is its label."""
    numbers = torch.arange(100)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 5, 5)
    return data.ImageSet(images.contiguous(), numbers, (0.5,), (0.25,))


def test_pixels_are_normalised_with_the_mean_and_std_of_the_dataset(numbered):
    pixel = numbered.normalised()[51, 0, 0, 0].item()
    assert pixel == pytest.approx((51 / 255 - 0.5) / 0.25)


def test_split_is_disjoint_and_depends_on_the_seed(numbered):
    train, val = data.split(numbered, 0.2, seed=3)
    assert len(train) == 80 and len(val) == 20
    assert sorted([*train.labels.tolist(), *val.labels.tolist()]) == list(range(100))
    assert torch.equal(val.labels, data.split(numbered, 20, seed=3)[1].labels)
    assert not torch.equal(val.labels, data.split(numbered, 20, seed=4)[1].labels)


@pytest.mark.parametrize("val_size", [100, 0.999, 0.001])
def test_split_refuses_an_empty_part(numbered, val_size):
    with pytest.raises(ConfigError, match=f"val_size={val_size}"):
        data.split(numbered, val_size, seed=0)


def test_folds_are_disjoint_complete_and_have_each_class_evenly(numbered):
    labels = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    unbalanced = replace(numbered, labels=labels)
    pairs = [data.split(unbalanced, 0.05, 3, fold, 5) for fold in range(5)]
    for train, val in pairs:
        assert len(train) == 80 and val.labels.bincount().tolist() == [14, 5, 1]
        both = torch.cat([train.images, val.images])[:, 0, 0, 0].sort().values
        assert torch.equal(both.long(), torch.arange(100))
        assert train.labels[:40].unique().tolist() == [0, 1, 2]  # not sorted by class
    shown = torch.cat([val.images for _, val in pairs])[:, 0, 0, 0].sort().values
    assert torch.equal(shown.long(), torch.arange(100))
    again, other = (data.split(unbalanced, 0.05, seed, 0, 5)[1].images for seed in (3, 4))
    assert torch.equal(again, pairs[0][1].images) and not torch.equal(other, again)


@pytest.mark.parametrize(("count", "folds"), [(100, 7), (5, 5), (3, 2)])
def test_folds_differ_by_one_image_at_most(numbered, count, folds):
    sizes = [len(data.split(numbered[:count], 0, 0, fold, folds)[1]) for fold in range(folds)]
    assert sum(sizes) == count and max(sizes) - min(sizes) <= 1


def test_validation_images_of_the_source_are_used_and_cannot_be_folded(numbered):
    own = replace(numbered[:60], val=numbered[60:])
    train, val = data.split(own, 0.5, seed=0)
    assert len(train) == 60 and train.val is None and val.labels.tolist() == list(range(60, 100))
    with pytest.raises(
        ConfigError, match=r"folds=3 is not possible: .*validation images of its own"
    ):
        data.split(own, 0.5, 0, 0, 3)
    with pytest.raises(ConfigError, match=r"folds=101 is not possible: .*100 training images"):
        data.split(numbered, 0.5, 0, 0, 101)


def test_balanced_weights_are_those_of_scikit_learn(numbered):
    from sklearn.utils.class_weight import compute_sample_weight

    labels = torch.tensor([0] * 70 + [1] * 25 + [4] * 5)  # two classes have no images
    expected = torch.from_numpy(compute_sample_weight("balanced", labels.numpy())).float()
    assert torch.allclose(data.balanced(labels), expected)
    shown = replace(numbered, labels=labels)
    easy = torch.arange(100.0)
    for skip_easy in (0.0, 0.6):
        plain = data.Curriculum(9, 10, seed=1, skip_easy=skip_easy).epoch(0, shown, easy, 0)
        curriculum = data.Curriculum(9, 10, 1, skip_easy=skip_easy, class_weights="balanced")
        epoch = curriculum.epoch(0, shown, easy, 0)
        assert torch.equal(epoch.order, plain.order)
        assert torch.allclose(epoch.weights, plain.weights * expected[plain.order])


def test_images_on_the_disk_give_the_same_epochs(numbered, tmp_path):
    numpy.save(tmp_path / "images.npy", numbered.images.numpy())
    on_disk = OnDisk(ImageFile(tmp_path / "images.npy", ""), torch.arange(100))
    stored = replace(numbered, images=on_disk)
    augmentation = data.Augmentation(2, True)
    sets = [data.split(part, 0.2, seed=3)[0].repeated(2) for part in (numbered, stored)]
    for start in (0, 9):
        batches = [read_epoch(part, 12, augmentation, 1, start) for part in sets]
        assert len(batches[0]) == 13 - start
        for (images, labels), (same, too) in zip(*batches, strict=True):
            assert torch.equal(images, same) and torch.equal(labels, too)


def test_each_epoch_visits_every_image_once_in_a_new_order(numbered):
    def order(epoch):
        return torch.cat([labels for _, labels in read_epoch(numbered, 25, epoch=epoch)]).tolist()

    assert sorted(order(0)) == list(range(100))
    assert order(0) == order(0) != order(1)


def test_shuffling_keeps_images_and_labels_together(numbered):
    for images, labels in read_epoch(numbered, 30):
        assert torch.equal(images[:, 0, 2, 2].long(), labels)


def test_an_epoch_resumed_in_the_middle_has_the_same_batches(numbered):
    def batches(start):
        return read_epoch(numbered, 10, data.Augmentation(2, True), epoch=1, start=start)

    for (whole, _), (resumed, _) in zip(batches(0)[4:], batches(4), strict=True):
        assert torch.equal(whole, resumed)


def test_half_of_the_easy_images_are_skipped_and_the_others_count_double(numbered):
    curriculum = data.Curriculum(9, 1, seed=0, skip_easy=0.6)
    epochs = [curriculum.epoch(e, numbered, torch.arange(100.0), 0) for e in range(9)]
    for epoch in epochs:
        assert len(epoch.order) == len(epoch) == 70
        assert set(range(60, 100)) < set(epoch.order.tolist()) and len(epoch.order.unique()) == 70
        assert torch.equal(epoch.weights, torch.where(epoch.order < 60, 2.0, 1.0))
    seen = torch.cat([epoch.order for epoch in epochs]).bincount(minlength=100)
    assert seen.min() > 0 and seen[60:].unique().tolist() == [9]


def test_no_images_are_skipped_in_the_last_sixteenth_of_the_epochs(numbered):
    curriculum = data.Curriculum(36, 16, seed=0, skip_easy=0.5)
    assert curriculum.steps(64) == [3] * 34 + [4] * 2
    for number in (0, 33, 34, 35):  # the number of steps equals the number of batches
        epoch = curriculum.epoch(number, numbered[:64], torch.zeros(64), 0)
        assert len(epoch) == len(list(epoch)) == curriculum.steps(64)[number]


def test_the_first_epochs_use_smaller_images(numbered):
    shrink = data.Shrink(share=0.5, factor=0.6)
    curriculum = data.Curriculum(4, 50, seed=0, shrink=shrink)
    sizes = []
    for number in range(4):
        images, _, _ = next(iter(curriculum.epoch(number, numbered, torch.zeros(100), 0)))
        sizes.append(images.shape[2])
    assert sizes == [3, 3, 5, 5] and curriculum.small_epochs == 2


def test_mirror_flips_half_of_the_images_and_the_other_half_in_the_next_epoch():
    images = torch.zeros(1000, 1, 4, 4, dtype=torch.uint8)
    images[:, :, :, 0] = 1
    whole = data.ImageSet(images, torch.arange(1000), (0,), (1,))

    def flipped(epoch) -> set[int]:
        ((shown, labels),) = read_epoch(whole, 1000, data.Augmentation(mirror=True), epoch)
        assert shown.sum() == images.sum()
        return set(labels[shown[:, 0, 0, 3] == 1].tolist())

    assert 400 < len(flipped(0)) < 600
    assert flipped(1) == set(range(1000)) - flipped(0)
    assert flipped(2) == flipped(0)


def test_resized_images_keep_their_content():
    pixels = torch.ones(2, 1, 28, 28)
    pixels[:, :, :14] = 0
    small = data.resized(pixels, 0.5)
    assert small.shape == (2, 1, 14, 14)
    assert small[:, :, :6].abs().max() < 1e-3 and (small[:, :, 8:] - 1).abs().max() < 1e-3
