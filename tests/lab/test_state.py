import math
import os
import pickle
import random
import resource
import zipfile
from contextlib import suppress
from typing import Any

import numpy
import pytest
import torch
from conftest import half_slow, options
from test_training import composed, end_epoch, new_state, patterns, train
from torch.utils._pytree import tree_leaves

from lab import checkpoint
from lab.build import build, build_schedule
from lab.state import State


def row(epoch: int) -> dict[str, float]:
    return dict.fromkeys(checkpoint.EPOCH_COLUMNS, 0.5) | {"epoch": epoch}


def trained(*overrides: str, epochs: int = 2):
    cfg = composed("batch_size=16", *overrides)
    state = new_state(cfg, [4] * 9)
    for _ in range(epochs):
        train(state, patterns(), cfg)
        end_epoch(state)
    return state, cfg


def test_the_best_epoch_is_the_latest_in_a_tie():
    history = [{"epoch": i, "val_accuracy": a} for i, a in enumerate((0.5, 0.9, 0.9, 0.7), 1)]
    assert State(None, None, None, [], None, history=history).best["epoch"] == 3


def test_a_checkpoint_holds_only_tensors_and_primitives(tmp_path):
    state, _ = trained("model=mlp")
    state.save(tmp_path / "last.pt")
    loaded = torch.load(tmp_path / "last.pt", weights_only=True)
    assert loaded["history"] == state.history
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    "stops",
    [[6, 15], pytest.param([1, 4, 7, 8, 12, 15, 16, 19], marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.parametrize("scheduler", [*options("scheduler"), "onecycle ema"])
def test_training_continues_bit_for_bit_from_a_loaded_state(tmp_path, scheduler, stops):
    """Stopped within an epoch and at its end, over several parts of a run."""
    scheduler, _, ema = scheduler.partition(" ")
    arguments = ("model=mlp", "model.dropout=0.5", "optimizer=adamw", f"scheduler={scheduler}")
    arguments += ("ema=0.99",) if ema else ()
    cfg = composed("batch_size=16", *arguments)
    path = tmp_path / "last.pt"

    class Stop(Exception):
        pass

    def train_to(end: int) -> State:
        """Train until `end` steps are done, from the checkpoint if there is one, and save."""
        state = new_state(cfg, [4] * 5)
        torch.rand(100)  # advance the generator, which loading must restore
        if path.exists():
            state.load(path)

        def after_step():
            if state.epoch * 4 + len(state.losses) == end and end % 4:
                raise Stop

        with suppress(Stop):
            while state.epoch * 4 < end:
                train(state, patterns(), cfg, after_step=after_step)
                figures = {"loss": 0.5, "seconds": 0.5, "images_per_second": 1}
                loss = (0.9, 0.8, 0.8, 0.8, 0.7)[state.epoch]  # a plateau
                state.end_epoch(figures, {"loss": loss, "accuracy": 0.5})
        state.save(path)
        return state

    torch.manual_seed(0)
    whole = train_to(20)
    path.unlink()
    for stop in stops:
        train_to(stop)
    resumed = train_to(20)
    for model, other in ((whole.model, resumed.model), (whole.evaluated, resumed.evaluated)):
        for name, value in model.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert (whole.evaluated is whole.model) == (not ema)
    rates = [row["lr"] for row in whole.history]
    assert rates == [row["lr"] for row in resumed.history]
    assert whole.scheduler.lr == resumed.scheduler.lr
    assert len(set(rates)) == {"constant": 1, "plateau": 2}.get(scheduler, 5)


def test_every_random_generator_is_saved(tmp_path):
    state, cfg = trained("model=linear", epochs=1)
    state.save(tmp_path / "last.pt")
    drawn = random.random(), numpy.random.rand(), torch.rand(1)
    restored = new_state(cfg)
    restored.load(tmp_path / "last.pt")
    assert (random.random(), numpy.random.rand(), torch.rand(1)) == drawn


def test_hyperparameters_come_from_the_config_not_the_checkpoint(tmp_path):
    state, _ = trained("model=linear", "optimizer=adamw", epochs=1)
    state.save(tmp_path / "last.pt")
    cfg = composed("batch_size=16", "model=linear", "optimizer=adamw", "optimizer.weight_decay=0.7")
    other = new_state(cfg, [4] * 9)
    other.load(tmp_path / "last.pt")
    assert other.optimizer.param_groups[0]["weight_decay"] == 0.7


def test_the_error_for_a_checkpoint_of_another_model_names_parameters_and_shapes(tmp_path):
    state, _ = trained("model=mlp", "model.hidden_sizes=[8]", epochs=1)
    state.save(tmp_path / "last.pt")
    other = new_state(composed("model=mlp", "model.hidden_sizes=[9]"))
    with pytest.raises(
        checkpoint.CheckpointError, match=r"head.weight \(10, 8\) instead of \(10, 9\)"
    ):
        other.load(tmp_path / "last.pt")
    with pytest.raises(checkpoint.CheckpointError, match=r"layers\.0\.weight is unexpected"):
        new_state(composed("model=linear")).load(tmp_path / "last.pt")


def test_a_partial_epoch_cannot_resume_with_another_batch_size(tmp_path):
    state, cfg = trained("model=linear", epochs=1)
    state.losses = [torch.ones(16)]
    state.save(tmp_path / "last.pt")
    other = new_state(cfg)
    other.steps = [8] * 9
    with pytest.raises(checkpoint.CheckpointError, match=r"epoch of 4 steps.*leave batch_size"):
        other.load(tmp_path / "last.pt")


def numpy_generator(position: int) -> tuple:
    return ("MT19937", torch.zeros(624, dtype=torch.int64), position, 0, 0.0)


ABSURD = [
    *(("images_per_second", value) for value in (math.inf, math.nan, 10**400, 1e308, -1)),
    *(("seconds", value) for value in (math.inf, math.nan, 10**400, 1.7e308)),
    *((key, math.inf) for key in ("train_loss", "val_loss", "lr")),
    *((key, -math.inf) for key in ("train_loss", "val_loss", "lr")),
    *((key, 10**400) for key in ("train_loss", "val_loss", "lr")),
    ("val_accuracy", math.nan),
]
HOSTILE = [
    (lambda saved: saved["optimizer"][0].update(exp_avg=torch.zeros(3)), r"exp_avg \(3,\) for"),
    (lambda saved: saved["optimizer"][0].update(exp_avg=[0]), "exp_avg of list for"),
    (lambda saved: saved["optimizer"][0].update(step=torch.zeros(2)), r"step \(2,\) for \(\)"),
    (lambda saved: saved["optimizer"][0].pop("exp_avg"), "its optimizer is of another type"),
    (lambda saved: saved["optimizer"].pop(1), "its optimizer state belongs to other parameters"),
    (lambda saved: saved.update(optimizer={}), "its optimizer state belongs to other parameters"),
    (lambda saved: saved.update(optimizer=[]), "its optimizer state belongs to other parameters"),
    (lambda saved: saved.update(losses=[1.0]), "its losses do not match"),
    (lambda saved: saved.update(losses=torch.zeros(5, 16)), "its losses do not match"),
    (lambda saved: saved.update(losses=torch.zeros(2)), "its losses do not match"),
    (lambda saved: saved.update(history=[{}]), "epoch 1 of its history is invalid"),
    (lambda saved: saved.update(history="ab"), "its history is not a list"),
    (lambda saved: saved["history"][0].update(seconds="1"), "epoch 1 of its history is invalid"),
    (lambda saved: saved["history"][0].update(seconds=-1), "epoch 1 of its history is invalid"),
    *(
        (
            lambda saved, key=key, value=value: saved["history"][0].update({key: value}),
            "epoch 1 of its history is invalid",
        )
        for key, value in ABSURD
    ),
    (lambda saved: saved.update(seconds=10**400), "seconds=1000.* is invalid"),
    (lambda saved: saved.update(seconds=10**5000), "cannot be read as a checkpoint"),
    (lambda saved: saved.update(seconds=math.nan), "seconds=nan is invalid"),
    (lambda saved: saved["model"]["head.bias"].requires_grad_(), "head.bias with a gradient"),
    (lambda saved: saved["best_weights"]["head.bias"].requires_grad_(), "bias with a gradient"),
    (
        lambda saved: saved["optimizer"][0]["exp_avg"].requires_grad_(),
        "its optimizer has exp_avg with a gradient",
    ),
    (lambda saved: saved["losses"].requires_grad_(), "its losses do not match"),
    (lambda saved: saved["image_losses"].requires_grad_(), "one loss per image"),
    (lambda saved: saved.update(losses=torch.zeros(1, 1).expand(4, 10**9)), "its losses do not"),
    (lambda saved: saved.update(image_losses=torch.zeros(1).expand(10**12)), "leave val_size"),
    (lambda saved: saved["history"][0].update(epoch=7), "epoch 1 of its history is invalid"),
    (lambda saved: saved["history"][0].update(val_accuracy=2), "epoch 1 of its history is invalid"),
    (
        lambda saved: saved.update(history=[row(i + 1) for i in range(99)]),
        "its history is not a list",
    ),
    (lambda saved: saved.update(steps=4), "steps=4 is invalid"),
    (lambda saved: saved.update(steps=[0]), r"steps=\[0\] is invalid"),
    (lambda saved: saved.update(steps=[4.0]), r"steps=\[4.0\] is invalid"),
    (lambda saved: saved.update(steps=[10**12]), r"steps=\[1000000000000\] is invalid"),
    (lambda saved: saved.update(image_losses=torch.zeros(3)), r"steps=\[4.* is invalid"),
    (
        lambda saved: saved.update(image_losses=torch.zeros(65)),
        "leave val_size and limit",
    ),
    (lambda saved: saved.update(image_losses=3), "it does not have one loss per image"),
    (lambda saved: saved.update(seconds="long"), "seconds='long' is invalid"),
    (lambda saved: saved.update(best_weights={}), "head.bias is missing"),
    (lambda saved: saved.update(best_weights=[]), "its weights have no names"),
    (lambda saved: saved.update(model=[1]), "its weights have no names"),
    (lambda saved: saved["model"].update({"head.bias": 3}), "head.bias of int instead of"),
    (lambda saved: saved["model"].update({1: 3}), "1 is unexpected"),
    (
        lambda saved: saved["model"].update({"head.bias": torch.zeros(10, dtype=torch.complex64)}),
        r"head.bias \(10,\) of complex64 instead of \(10,\)",
    ),
    (lambda saved: saved.pop("generators"), "is not a checkpoint of this run .*generators"),
    (lambda saved: saved["generators"].update(numpy=numpy_generator(10**6)), "NumPy's generator"),
    (lambda saved: saved["generators"].update(torch=torch.zeros(3)), "is not a checkpoint of"),
    (lambda saved: saved["generators"].update(python=(3, (1,), None)), "is not a checkpoint of"),
]


def spread(content: Any) -> Any:
    """The same tree, each tensor in it a single number that is shown as often as it had values."""
    if isinstance(content, torch.Tensor) and content.numel():
        return content.flatten()[:1].abs().reshape([1] * content.ndim).expand(content.shape)
    if isinstance(content, dict):
        return {key: spread(value) for key, value in content.items()}
    return content


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_values_are_copied_out_of_a_checkpoint(tmp_path, optimizer):
    """Adopted tensors that overlap in memory would be written behind their end by fused kernels."""
    choice = ("model=mlp", f"optimizer={optimizer}")
    state, cfg = trained(*choice, epochs=1)
    path = tmp_path / "last.pt"
    state.save(path)
    saved = torch.load(path)
    generators = saved.pop("generators")
    saved = spread(saved) | {"generators": generators, "losses": saved["losses"]}
    torch.save(saved, path)
    other = new_state(cfg, [4] * 9)
    other.load(path)
    held = [other.best_weights, checkpoint.state_of(other.optimizer), other.image_losses]
    for value in tree_leaves([held, other.model.state_dict()]):
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
    train(other, patterns(), cfg)
    end_epoch(other)


def test_a_checkpoint_takes_no_more_memory_than_its_file_has_bytes(tmp_path):
    path, packed = tmp_path / "last.pt", tmp_path / "packed.pt"
    torch.save({"model": torch.zeros(10**6)}, path)
    checkpoint.load(path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", 8) as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
    with pytest.raises(checkpoint.CheckpointError, match=r"packed.pt cannot be read as"):
        checkpoint.load(packed)


def test_a_checkpoint_that_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device", "nothing"):
        with pytest.raises(checkpoint.CheckpointError, match=f"{name} cannot be read as"):
            checkpoint.load(tmp_path / name)


@pytest.mark.parametrize(("damage", "message"), half_slow(HOSTILE))
def test_a_hostile_state_is_refused(tmp_path, damage, message):
    state, cfg = trained("model=linear", epochs=1)
    path = tmp_path / "last.pt"
    state.save(path)
    saved = torch.load(path)
    damage(saved)
    torch.save(saved, path)
    other = new_state(cfg, [4] * 9)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        other.load(path)


def test_a_state_past_the_end_of_its_schedule_is_refused(tmp_path):
    state, _ = trained("model=linear", epochs=9)
    state.save(tmp_path / "last.pt")
    cfg = composed("batch_size=16", "model=linear", "scheduler=onecycle")
    other = new_state(cfg, [4])
    other.steps = [1] * 200
    with pytest.raises(checkpoint.CheckpointError, match=r"already at step 9.*more epochs"):
        other.load(tmp_path / "last.pt")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_run_with_an_unused_layer_can_be_resumed(tmp_path, optimizer):
    """Its parameters never get a gradient, so the optimizer has no state for them."""
    cfg = composed("batch_size=16", "model=linear", f"optimizer={optimizer}")

    def with_unused() -> State:
        model = build(cfg, "model")
        model.unused = torch.nn.Linear(2, 2)
        made = build(cfg, "optimizer", model.parameters())
        scheduler = build_schedule(cfg, made, [4] * 9)
        return State(model, made, scheduler, [4] * 9, torch.zeros(64))

    first, second = with_unused(), with_unused()
    train(first, patterns(), cfg)
    end_epoch(first)
    first.save(tmp_path / "last.pt")
    second.load(tmp_path / "last.pt")
    assert checkpoint.state_of(second.optimizer)[3] == {}
    train(second, patterns(), cfg)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/the-bomb-went-off",)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps(Bomb()), pickle.dumps([1])])
def test_a_file_that_is_not_a_checkpoint_is_refused_and_never_executed(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(
        checkpoint.CheckpointError, match=r"last.pt (cannot be read as|is not) a checkpoint"
    ):
        new_state(composed("model=linear")).load(path)
    assert not os.path.exists("/tmp/the-bomb-went-off")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    state, cfg = trained("model=linear", epochs=1)
    path = tmp_path / "last.pt"
    state.save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(checkpoint.CheckpointError, match="cannot be read as a checkpoint"):
        new_state(cfg).load(path)


def test_a_failed_save_keeps_the_previous_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save({"epoch": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save({"epoch": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_a_full_disk_is_reported_and_keeps_the_previous_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save({"epoch": 1}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match=r"last.pt could not be written \(File too large\)"):
            checkpoint.save({"weights": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [name.name for name in tmp_path.iterdir()] == ["last.pt"]
