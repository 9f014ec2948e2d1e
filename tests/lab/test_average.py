"""The moving average of the weights: its values, and that it is what is validated and kept."""

import pytest
import torch
from test_training import composed, new_state, patterns, train
from torch import nn

from lab.average import Average


def stepped(model: nn.Module, decay: float, steps: int) -> tuple[Average, list[float]]:
    """The average after so many steps, each of which adds 1 to the weight, and its values."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    average, values = Average(model, optimizer, decay), []
    for _ in range(steps):
        for weights in model.parameters():
            weights.grad = -torch.ones_like(weights)
        optimizer.step()
        values.append(average.module.weight.item())
    return average, values


@pytest.mark.parametrize("decay", [0.15, 0.9])
def test_the_average_is_the_exponential_one_with_a_smaller_decay_in_the_first_steps(decay):
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    average, values = stepped(model, decay, 20)
    expected = [1.0]
    for n in range(1, 20):
        share = min(decay, (n + 1) / (n + 10))
        expected.append(share * expected[-1] + (1 - share) * (n + 1))
    assert values == pytest.approx(expected)
    assert int(average.n_averaged) == 20 and model.weight.item() == 20


def test_statistics_are_averaged_and_whole_numbers_are_copied():
    class Net(nn.Linear):
        def __init__(self):
            super().__init__(1, 1)
            self.norm = nn.BatchNorm1d(1)
            self.register_buffer("index", torch.tensor([3, 7, 1000003]))

    model = Net()
    average, _ = stepped(model, 0.9, 9)
    for _ in range(9):
        model.norm(torch.randn(4, 1) + 5)
        average.update_parameters(model)
    assert torch.equal(average.module.index, model.index)  # rounded down, it would be [2, 6, …]
    assert average.module.norm.num_batches_tracked == 9
    assert 0 < average.module.norm.running_mean < model.norm.running_mean


def test_what_is_validated_and_kept_as_best_is_the_average():
    state = new_state(composed("model=mlp", "ema=0.9", "batch_size=16"), [4] * 2)
    train(state, patterns(), composed("model=mlp", "ema=0.9", "batch_size=16"))
    figures = {"loss": 0.5, "seconds": 0.5, "images_per_second": 1}
    state.end_epoch(figures, {"loss": 0.5, "accuracy": 0.5})
    averages, weights = state.evaluated.state_dict(), state.model.state_dict()
    for name, value in state.best_weights.items():
        assert torch.equal(value, averages[name]) and not torch.equal(value, weights[name])


def test_an_average_may_begin_or_end_when_a_run_is_resumed(tmp_path):
    plain, with_average = (composed("model=mlp", *words) for words in ((), ("ema=0.9",)))
    state = new_state(plain)
    state.save(tmp_path / "last.pt")
    resumed = new_state(with_average)
    resumed.load(tmp_path / "last.pt")
    train(resumed, patterns(), with_average)
    assert int(resumed.average.n_averaged) == 1  # a copy of the weights after the first step
    assert all(map(torch.equal, resumed.model.parameters(), resumed.evaluated.parameters()))
    resumed.save(tmp_path / "last.pt")
    state.load(tmp_path / "last.pt")
    assert state.evaluated is state.model
