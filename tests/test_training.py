import math

import conftest
import pytest
import torch
from torch import nn

import data
import training
from lab.build import build, build_schedule
from lab.machine import Machine
from lab.state import State

CPU = Machine("cpu", "fp32")


def composed(*overrides: str):
    return conftest.composed("dataset=digits", "debug=overfit", *overrides)


def patterns(count: int = 64) -> data.ImageSet:
    """Return ten noisy patterns that are easy to classify."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (10, 1, 8, 8), generator=generator)
    labels = torch.arange(count) % 10
    images = (
        0.7 * clean[labels] + torch.randint(0, 70, (count, 1, 8, 8), generator=generator)
    ).byte()
    return data.ImageSet(images, labels, (0.5,), (0.25,))


def new_state(cfg, steps: list[int] | None = None) -> State:
    torch.manual_seed(0)
    model = build(cfg, "model")
    optimizer = build(cfg, "optimizer", model.parameters())
    steps = steps or [1] * 200
    scheduler = build_schedule(cfg, optimizer, steps)
    return State(model, optimizer, scheduler, steps, torch.zeros(64), ema=cfg.ema)


def train(state: State, image_set: data.ImageSet, cfg, machine=CPU, **options) -> float:
    """Train for one epoch with the settings of the config; return its mean loss."""
    augmentation = data.Augmentation(**cfg.augmentation)
    curriculum = data.Curriculum(cfg.epochs, cfg.batch_size, cfg.seed, augmentation)
    start = len(state.losses)
    epoch = curriculum.epoch(state.epoch, image_set, state.image_losses, start)
    metrics = training.train_epoch(
        state, epoch, machine, cfg.label_smoothing, cfg.grad_clip, **options
    )
    return metrics["loss"]


def end_epoch(state: State, accuracy: float = 0.5) -> None:
    train = {"loss": 0.5, "seconds": 0.5, "images_per_second": 1}
    state.end_epoch(train, {"loss": 0.5, "accuracy": accuracy})


def test_train_epoch_returns_the_mean_loss_of_its_batches():
    cfg = composed("model=linear", "optimizer=sgd", "batch_size=64")
    state = new_state(cfg)
    images = patterns()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(state.model(images.normalised()), images.labels)
    assert train(state, images, cfg) == pytest.approx(expected.item(), rel=1e-5)


def test_an_sgd_step_subtracts_the_gradient_times_the_learning_rate():
    cfg = composed(
        "model=linear", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false",
        "optimizer.weight_decay=0", "optimizer.lr=0.1", "batch_size=64",
    )  # fmt: skip
    state, images = new_state(cfg), patterns()
    before = state.model.head.weight.detach().clone()
    loss = nn.functional.cross_entropy(state.model(images.normalised()), images.labels)
    (gradient,) = torch.autograd.grad(loss, state.model.head.weight)
    train(state, images, cfg)
    assert torch.allclose(state.model.head.weight, before - 0.1 * gradient, atol=1e-6)


def test_gradients_are_clipped_to_the_configured_norm():
    cfg = composed(
        "model=linear", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false",
        "optimizer.weight_decay=0", "optimizer.lr=1", "batch_size=64", "grad_clip=0.01",
    )  # fmt: skip
    state = new_state(cfg)
    before = [weights.detach().clone() for weights in state.model.parameters()]
    train(state, patterns(), cfg)
    moved = [now - then for now, then in zip(state.model.parameters(), before, strict=True)]
    assert math.hypot(*(part.norm().item() for part in moved)) == pytest.approx(0.01, rel=1e-3)


def test_label_smoothing_changes_the_loss():
    plain, smooth = composed("model=linear"), composed("model=linear", "label_smoothing=0.5")
    losses = [train(new_state(cfg), patterns(), cfg) for cfg in (plain, smooth)]
    assert losses[0] != losses[1]


def test_the_error_for_a_non_finite_loss_names_epoch_and_step():
    cfg = composed("model=linear", "optimizer=sgd", "optimizer.lr=1e30", "batch_size=8")
    state = new_state(cfg)
    with pytest.raises(FloatingPointError, match=r"in epoch 1, step [2-8]: lower optimizer.lr"):
        train(state, patterns(), cfg)


def test_evaluate_counts_correct_predictions_over_uneven_batches(monkeypatch):
    monkeypatch.setattr(training, "EVAL_BATCH", 7)
    images = patterns(50)

    class Cheat(nn.Module):
        """Predicts every label correctly except those of class 3."""

        def forward(self, batch):
            start = self.seen
            self.seen += len(batch)
            answers = images.labels[start : self.seen].clone()
            answers[answers == 3] = 4
            return 100.0 * nn.functional.one_hot(answers, 10)

    model = Cheat()
    model.seen = 0
    assert training.evaluate(model, images, CPU, data.Augmentation())["accuracy"] == pytest.approx(
        0.9
    )


def test_predict_averages_each_image_with_its_mirror_image():
    images = patterns()
    model = new_state(composed("model=mlp")).model.eval()
    flipped = data.ImageSet(images.images.flip(3), images.labels, images.mean, images.std)
    both = (model(images.normalised()) + model(flipped.normalised())) / 2
    assert torch.allclose(
        training.predict(model, images, CPU, data.Augmentation(mirror=True)), both, atol=1e-6
    )


def test_evaluate_changes_neither_weights_nor_batch_norm_statistics():
    cfg = composed("model=cnn")
    state = new_state(cfg)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    training.evaluate(state.model, patterns(), CPU, data.Augmentation())
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_training_in_bf16_reduces_the_loss():
    cfg = composed("model=mlp")
    state = new_state(cfg)
    losses = []
    for _ in range(5):
        losses.append(train(state, patterns(), cfg, Machine("cpu", "bf16")))
        end_epoch(state)
    assert losses[-1] < losses[0]
