import pytest
import torch

import data
from config.errors import ConfigError

NO_AUGMENTATION = data.Augmentation()


def epoch_of(images, batch_size, augmentation=NO_AUGMENTATION, epoch=0, start=0):
    """The batches of an epoch that skips no image, without their weights."""
    plan = data.plan_epoch(torch.zeros(len(images)), 0.0, augmentation, 5, epoch)
    return [batch for batch, _ in data.batches(images, plan, batch_size, augmentation, start)]


@pytest.fixture
def numbered() -> data.ImageSet:
    """A hundred images; every pixel of number i is i, and so is its label."""
    numbers = torch.arange(100)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 5, 5)
    return data.ImageSet(images.contiguous(), numbers, (0.5,), (0.25,))


def test_normalised_pixels_have_the_mean_and_std_that_the_facts_promise(numbered):
    pixel = numbered.normalised()[51, 0, 0, 0].item()
    assert pixel == pytest.approx((51 / 255 - 0.5) / 0.25)


def test_split_shares_no_image_and_follows_the_seed(numbered):
    train, val = data.split(numbered, 0.2, seed=3)
    assert len(train) == 80 and len(val) == 20
    assert sorted([*train.labels.tolist(), *val.labels.tolist()]) == list(range(100))
    assert torch.equal(val.labels, data.split(numbered, 20, seed=3)[1].labels)
    assert not torch.equal(val.labels, data.split(numbered, 20, seed=4)[1].labels)


@pytest.mark.parametrize("val_size", [100, 0.999, 0.001])
def test_split_leaves_images_on_either_side(numbered, val_size):
    with pytest.raises(ConfigError, match=f"val_size={val_size}"):
        data.split(numbered, val_size, seed=0)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(numbered):
    def order(epoch):
        return torch.cat([batch.labels for batch in epoch_of(numbered, 25, epoch=epoch)]).tolist()

    assert sorted(order(0)) == list(range(100))
    assert order(0) == order(0) != order(1)


def test_images_stay_with_their_labels(numbered):
    for batch in epoch_of(numbered, 30):
        assert torch.equal(batch.images[:, 0, 2, 2].long(), batch.labels)


def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_batches(numbered):
    def batches(start):
        return epoch_of(numbered, 10, data.Augmentation(2, True), epoch=1, start=start)

    for whole, resumed in zip(batches(0)[4:], batches(4), strict=True):
        assert torch.equal(whole.images, resumed.images)


def test_of_the_easy_images_half_sits_out_and_half_counts_double():
    losses = torch.arange(100.0)
    plans = [data.plan_epoch(losses, 0.6, NO_AUGMENTATION, seed=0, epoch=e) for e in range(9)]
    for plan in plans:
        assert len(plan.order) == data.epoch_size(100, 0.6) == 70
        assert set(range(60, 100)) < set(plan.order.tolist()) and len(plan.order.unique()) == 70
        assert torch.equal(plan.weights, torch.where(plan.order < 60, 2.0, 1.0))
    seen = torch.cat([plan.order for plan in plans]).bincount(minlength=100)
    assert seen.min() > 0 and seen[60:].unique().tolist() == [9]


def test_shift_moves_an_image_and_lets_black_in():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).repeat(2, 1, 1, 1)
    moved = data.shift(image, torch.tensor([[1, 2], [1, 0]]), limit=1)
    assert torch.equal(moved[0], image[0])
    assert moved[1, 0].tolist() == [[0, 4, 5], [0, 7, 8], [0, 0, 0]]


def test_mirror_flips_half_of_the_images_and_in_the_next_epoch_the_other_half():
    images = torch.zeros(1000, 1, 4, 4, dtype=torch.uint8)
    images[:, :, :, 0] = 1
    whole = data.ImageSet(images, torch.arange(1000), (0,), (1,))

    def flipped(epoch) -> set[int]:
        (batch,) = epoch_of(whole, 1000, data.Augmentation(mirror=True), epoch)
        assert batch.images.sum() == images.sum()
        return set(batch.labels[batch.images[:, 0, 0, 3] == 1].tolist())

    assert 400 < len(flipped(0)) < 600
    assert flipped(1) == set(range(1000)) - flipped(0)
    assert flipped(2) == flipped(0)


def test_resized_images_keep_their_content():
    pixels = torch.ones(2, 1, 28, 28)
    pixels[:, :, :14] = 0
    small = data.resized(pixels, 0.5)
    assert small.shape == (2, 1, 14, 14)
    assert small[:, :, :6].abs().max() < 1e-3 and (small[:, :, 8:] - 1).abs().max() < 1e-3
