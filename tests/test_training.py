import math

import conftest
import pytest
import torch
from torch import nn

import data
import training
from config import schema
from config.errors import ConfigError
from state import State


def composed(*overrides: str):
    cfg = conftest.composed("dataset=digits", "debug=overfit", *overrides)
    cfg.device, cfg.precision, cfg.total_steps = "cpu", "fp32", 100
    return cfg


def patterns(count: int = 64) -> data.ImageSet:
    """Ten noisy patterns, easy to tell apart."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (10, 1, 8, 8), generator=generator)
    labels = torch.arange(count) % 10
    images = (
        0.7 * clean[labels] + torch.randint(0, 70, (count, 1, 8, 8), generator=generator)
    ).byte()
    return data.ImageSet(images, labels, (0.5,), (0.25,))


def new_state(cfg) -> State:
    torch.manual_seed(0)
    model = schema.build(cfg, "model")
    optimizer = schema.build(cfg, "optimizer", model.parameters())
    scheduler = schema.build(cfg, "scheduler", optimizer)
    return State(model, optimizer, scheduler, steps=[1] * 200, image_losses=torch.zeros(64))


def test_the_mean_loss_is_that_of_the_batches():
    cfg = composed("model=linear", "optimizer=sgd", "batch_size=64")
    state = new_state(cfg)
    images = patterns()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(state.model(images.normalised()), images.labels)
    assert training.train_epoch(state, images, cfg) == pytest.approx(expected.item(), rel=1e-5)


def test_the_last_sixteenth_of_the_epochs_shows_all_images():
    cfg = composed("model=linear", "skip_easy=0.5", "epochs=36", "batch_size=16")
    assert training.count_steps(cfg, 64) == [3] * 34 + [4] * 2


def test_one_step_of_sgd_is_the_gradient_times_the_learning_rate():
    cfg = composed(
        "model=linear", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false",
        "optimizer.weight_decay=0", "optimizer.lr=0.1", "batch_size=64",
    )  # fmt: skip
    state, images = new_state(cfg), patterns()
    before = state.model.head.weight.detach().clone()
    loss = nn.functional.cross_entropy(state.model(images.normalised()), images.labels)
    (gradient,) = torch.autograd.grad(loss, state.model.head.weight)
    training.train_epoch(state, images, cfg)
    assert torch.allclose(state.model.head.weight, before - 0.1 * gradient, atol=1e-6)


def test_gradients_are_clipped_to_the_norm_that_was_asked_for():
    cfg = composed(
        "model=linear", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false",
        "optimizer.weight_decay=0", "optimizer.lr=1", "batch_size=64", "grad_clip=0.01",
    )  # fmt: skip
    state = new_state(cfg)
    before = [weights.detach().clone() for weights in state.model.parameters()]
    training.train_epoch(state, patterns(), cfg)
    moved = [now - then for now, then in zip(state.model.parameters(), before, strict=True)]
    assert math.hypot(*(part.norm().item() for part in moved)) == pytest.approx(0.01, rel=1e-3)


def test_label_smoothing_reaches_the_loss():
    plain, smooth = composed("model=linear"), composed("model=linear", "label_smoothing=0.5")
    losses = [training.train_epoch(new_state(cfg), patterns(), cfg) for cfg in (plain, smooth)]
    assert losses[0] != losses[1]


def test_a_loss_that_is_not_finite_stops_with_epoch_and_step():
    cfg = composed("model=linear", "optimizer=sgd", "optimizer.lr=1e30", "batch_size=8")
    state = new_state(cfg)
    with pytest.raises(FloatingPointError, match=r"in epoch 1, step [2-8]: lower optimizer.lr"):
        training.train_epoch(state, patterns(), cfg)


def test_evaluate_counts_what_is_right_over_uneven_batches(monkeypatch):
    monkeypatch.setattr(training, "EVAL_BATCH", 7)
    cfg, images = composed("model=linear"), patterns(50)

    class Cheat(nn.Module):
        """Right for all images but those of class 3."""

        def forward(self, batch):
            start = self.seen
            self.seen += len(batch)
            answers = images.labels[start : self.seen].clone()
            answers[answers == 3] = 4
            return 100.0 * nn.functional.one_hot(answers, 10)

    model = Cheat()
    model.seen = 0
    assert training.evaluate(model, images, cfg)["accuracy"] == pytest.approx(0.9)


def test_a_model_trained_on_mirror_images_is_asked_about_both():
    cfg, images = composed("model=mlp", "augmentation=flip", "val_size=0.1"), patterns()
    model = new_state(cfg).model.eval()
    flipped = data.ImageSet(images.images.flip(3), images.labels, images.mean, images.std)
    both = (model(images.normalised()) + model(flipped.normalised())) / 2
    assert torch.allclose(training.predict(model, images, cfg), both, atol=1e-6)


def test_evaluate_leaves_the_weights_and_the_norms_alone():
    cfg = composed("model=cnn")
    state = new_state(cfg)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    training.evaluate(state.model, patterns(), cfg)
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("wanted", ["auto", "fp32", "bf16"])
def test_precision_is_never_left_at_auto(wanted):
    assert training.choose_precision(wanted, "cpu") in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("wanted", "total_steps", "compiled"),
    [("auto", 100, False), ("auto", 10**6, True), (True, 1, True), (False, 10**6, False)],
)
def test_compile_auto_decides_by_the_number_of_steps(wanted, total_steps, compiled):
    assert training.choose_compile(wanted, total_steps) is compiled


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_choice_of_kernels_does_not_change_what_a_vit_says(precision):
    cfg, images = composed("model=vit"), patterns(20)
    cfg.precision = precision
    model = new_state(cfg).model
    before = training.predict(model, images, cfg)
    training.choose_kernels("cpu", precision)
    assert torch.allclose(training.predict(model, images, cfg), before, atol=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_an_absent_device_is_refused():
    with pytest.raises(ConfigError, match="device=cuda is not on this machine: use auto or"):
        training.choose_device("cuda")


def test_bf16_trains_too():
    cfg = composed("model=mlp")
    cfg.precision = "bf16"
    state = new_state(cfg)
    losses = []
    for epoch in range(5):
        losses.append(training.train_epoch(state, patterns(), cfg))
        state.end_epoch({"epoch": epoch, "val_accuracy": 0.5})
    assert losses[-1] < losses[0]


def test_deterministic_refuses_an_operation_that_cannot_be():
    training.set_deterministic(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    finally:
        training.set_deterministic(False)
