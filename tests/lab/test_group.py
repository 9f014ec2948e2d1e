import pytest
import torch

from lab import group
from lab.errors import ConfigError
from lab.ranks import Ranks


@pytest.fixture
def as_rank(monkeypatch):
    """Make this process one of several, which have not been connected."""

    def become(rank: int, count: int) -> None:
        monkeypatch.setattr("lab.ranks.current", lambda: Ranks(rank, count, rank))
        monkeypatch.setattr(group, "_control", object())

    return become


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [7, 8, 20])
def test_the_shares_of_all_processes_are_the_batch(as_rank, count, size):
    batch, weights, found = torch.arange(3 * size), torch.rand(3 * size), []
    for rank in range(count):
        as_rank(rank, count)
        share = group.Share(3, size, has_partners=False)
        found.append((share.of(batch)[share.parts()[1]], share.weights(weights)[1]))
    assert torch.equal(torch.cat([rows for rows, _ in found]), batch[size : 2 * size])
    lengths = [len(rows) for rows, _ in found]
    assert max(lengths) - min(lengths) <= 1
    expected = weights[size : 2 * size] / weights[size : 2 * size].sum()
    torch.testing.assert_close(torch.cat([part for _, part in found]) / count, expected)


def test_with_partners_each_share_begins_with_the_image_before_it(as_rank):
    for rank, expected in enumerate(([9, 5, 6], [6, 7, 8, 9])):
        as_rank(rank, 2)
        share = group.Share(2, 5, has_partners=True)
        rows = share.of(torch.arange(10))[share.parts()[1]]
        assert rows.tolist() == expected
        assert share.own(rows).tolist() == expected[1:]


def test_in_one_process_a_share_is_the_batch_itself():
    share, batch = group.Share(2, 4, has_partners=True), torch.arange(8)
    assert share.of(batch) is batch and share.parts() == [slice(0, 4), slice(4, 8)]
    assert share.own(batch) is batch


@pytest.mark.parametrize("images", [1, 2, 3, 10])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_validation_images_are_shared_equally_and_each_counts_once(as_rank, images, count):
    found = []
    for rank in range(count):
        as_rank(rank, count)
        found.append(group.shared(torch.arange(images)))
    assert len({len(part) for part in found}) == 1 and len(found[0])
    assert torch.cat(found)[:images].tolist() == list(range(images))


def test_a_batch_of_fewer_images_than_processes_is_refused(as_rank):
    as_rank(0, 3)
    with pytest.raises(ConfigError, match="batch_size=2 cannot be shared among 3 processes"):
        group.columns(2)
