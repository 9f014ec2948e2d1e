import pytest
import torch

import data
from config.errors import ConfigError

NO_AUGMENTATION = data.Augmentation()


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
        batches = data.batches(numbered, 25, NO_AUGMENTATION, seed=0, epoch=epoch)
        return torch.cat([batch.labels for batch in batches]).tolist()

    assert sorted(order(0)) == list(range(100))
    assert order(0) == order(0) != order(1)


def test_images_stay_with_their_labels(numbered):
    for batch in data.batches(numbered, 30, NO_AUGMENTATION, seed=0, epoch=0):
        assert torch.equal(batch.images[:, 0, 2, 2].long(), batch.labels)


def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_batches(numbered):
    def batches(start):
        return list(data.batches(numbered, 10, data.Augmentation(2, True), 5, 1, start))

    for whole, resumed in zip(batches(0)[4:], batches(4), strict=True):
        assert torch.equal(whole.images, resumed.images)


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
        (batch,) = data.batches(whole, 1000, data.Augmentation(mirror=True), 0, epoch)
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
