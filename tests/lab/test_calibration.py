"""The expected calibration error."""

import pytest
import torch

from lab.calibration import expected_error, reliability


def error(confidences: list[float], right: list[bool], bins: int = 15) -> float:
    first = torch.tensor(confidences, dtype=torch.float64)
    labels = torch.tensor([0 if each else 1 for each in right])
    return expected_error(reliability(torch.stack([first, 1 - first], 1), labels, bins))


def test_as_right_as_sure():
    assert error([0.75] * 4, [True, True, True, False]) == pytest.approx(0)


def test_always_right_and_never_right():
    assert error([1.0] * 9, [True] * 9) == 0
    assert error([1.0] * 9, [False] * 9) == 1


def test_by_hand():
    # Bins of 2 and 3 images: |1/2 - 0.675| * 2/5 + |1 - 0.95| * 3/5.
    confidences, right = [0.65, 0.7, 0.95, 0.95, 0.95], [True, False, True, True, True]
    assert error(confidences, right, 5) == pytest.approx(0.1)


def test_every_image_is_in_one_bin():
    probabilities = torch.rand(1000, 7, dtype=torch.float64).softmax(1)
    labels = torch.randint(0, 7, (1000,))
    bins = reliability(probabilities, labels)
    assert len(bins) == 15 and sum(each.count for each in bins) == 1000
    for each in bins:
        if each.count:
            assert each.low < each.confidence <= each.high
    right = (probabilities.argmax(1) == labels).double().mean().item()
    assert sum(each.count * each.accuracy for each in bins) / 1000 == pytest.approx(right)


@pytest.mark.parametrize(("row", "counts"), [([1.0, 0.0], [0, 1]), ([0.5, 0.5], [1, 0])])
def test_edges(row, counts):
    bins = reliability(torch.tensor([row]), torch.zeros(1), 2)
    assert [each.count for each in bins] == counts
