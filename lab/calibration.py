"""Calibration: whether a model's confidence matches its accuracy."""

from dataclasses import dataclass

from torch import Tensor

BINS = 15  # as in the paper


@dataclass(frozen=True)
class Bin:
    """The images to whose predicted class the model gives a probability in (low, high]."""

    low: float
    high: float
    count: int
    accuracy: float = 0.0  # the share of them that is right
    confidence: float = 0.0  # the mean of these probabilities


def reliability(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> list[Bin]:
    """The bins of a reliability diagram, equally wide, from 0 to 1; probabilities are
    `(N, num_classes)`."""
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels).double()
    number = (confidence * bins).ceil().long().clamp(1, bins) - 1
    found = []
    for index in range(bins):
        edges, inside = (index / bins, (index + 1) / bins), number == index
        count = int(inside.sum())
        means = [values[inside].mean().item() for values in (right, confidence)] if count else []
        found.append(Bin(*edges, count, *means))
    return found


def expected_error(bins: list[Bin]) -> float:
    """The expected calibration error, ECE = Σ |B|/n · |accuracy(B) − confidence(B)| over the bins B
    (Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599)."""
    total = sum(each.count for each in bins)
    return sum(each.count / total * abs(each.accuracy - each.confidence) for each in bins)
