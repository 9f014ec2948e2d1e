import os
import pickle
import random
import resource

import numpy
import pytest
import torch
from test_training import composed, new_state, patterns

import state
import training


def trained(*overrides: str, epochs: int = 2):
    cfg = composed("batch_size=16", *overrides)
    run = new_state(cfg)
    run.steps = [4] * 9
    for epoch in range(epochs):
        training.train_epoch(run, patterns(), cfg)
        run.end_epoch({"epoch": epoch + 1, "val_accuracy": 0.5})
    return run, cfg


def test_the_best_epoch_is_the_first_of_equals():
    history = [{"epoch": i, "val_accuracy": a} for i, a in enumerate((0.5, 0.9, 0.9, 0.7), 1)]
    assert state.State(None, None, None, [], None, history).best["epoch"] == 2


def test_a_checkpoint_holds_only_tensors_and_primitives(tmp_path):
    run, _ = trained("model=mlp")
    run.save(tmp_path / "last.pt")
    loaded = torch.load(tmp_path / "last.pt", weights_only=True)
    assert loaded["history"] == run.history
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("stop_after", [1, 4, 6])
@pytest.mark.parametrize("scheduler", ["onecycle", "cosine", "constant"])
def test_a_state_that_was_loaded_goes_on_bit_for_bit(tmp_path, scheduler, stop_after):
    """Stopped inside the first epoch, at its end, and inside the second."""
    overrides = ("model=mlp", "model.dropout=0.5", f"scheduler={scheduler}", "optimizer=adamw")
    whole, _ = trained(*overrides)

    class Stop(Exception):
        pass

    cfg = composed("batch_size=16", *overrides)
    first = new_state(cfg)
    first.steps = [4] * 9

    def after_step():
        if first.epoch * 4 + len(first.losses) == stop_after:
            first.save(tmp_path / "last.pt")
            raise Stop

    with pytest.raises(Stop):
        while True:
            training.train_epoch(first, patterns(), cfg, after_step)
            first.end_epoch({"epoch": first.epoch + 1, "val_accuracy": 0.5})

    second = new_state(cfg)
    second.steps = [4] * 9
    torch.rand(100)  # the generators have moved on in the meantime
    second.load(tmp_path / "last.pt")
    while second.epoch < 2:
        training.train_epoch(second, patterns(), cfg)
        second.end_epoch({"epoch": second.epoch + 1, "val_accuracy": 0.5})
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert whole.scheduler.get_last_lr() == second.scheduler.get_last_lr()


def test_every_generator_is_saved(tmp_path):
    run, cfg = trained("model=linear", epochs=1)
    run.save(tmp_path / "last.pt")
    drawn = random.random(), numpy.random.rand(), torch.rand(1)
    again = new_state(cfg)
    again.load(tmp_path / "last.pt")
    assert (random.random(), numpy.random.rand(), torch.rand(1)) == drawn


def test_hyper_parameters_come_from_the_config_not_from_the_checkpoint(tmp_path):
    run, _ = trained("model=linear", "optimizer=adamw", epochs=1)
    run.save(tmp_path / "last.pt")
    cfg = composed("batch_size=16", "model=linear", "optimizer=adamw", "optimizer.weight_decay=0.7")
    other = new_state(cfg)
    other.steps = [4] * 9
    other.load(tmp_path / "last.pt")
    assert other.optimizer.param_groups[0]["weight_decay"] == 0.7


def test_the_checkpoint_of_another_model_is_refused_by_names_and_shapes(tmp_path):
    run, _ = trained("model=mlp", "model.hidden_sizes=[8]", epochs=1)
    run.save(tmp_path / "last.pt")
    other = new_state(composed("model=mlp", "model.hidden_sizes=[9]"))
    with pytest.raises(state.CheckpointError, match=r"head.weight \(10, 8\) instead of \(10, 9\)"):
        other.load(tmp_path / "last.pt")
    with pytest.raises(state.CheckpointError, match=r"layers\.0\.weight is unknown"):
        new_state(composed("model=linear")).load(tmp_path / "last.pt")


def test_an_epoch_under_way_cannot_go_on_with_other_batches(tmp_path):
    run, cfg = trained("model=linear", epochs=1)
    run.losses = [torch.ones(16)]
    run.save(tmp_path / "last.pt")
    other = new_state(cfg)
    other.steps = [8] * 9
    with pytest.raises(state.CheckpointError, match=r"epoch of 4 steps.*leave batch_size"):
        other.load(tmp_path / "last.pt")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/the-bomb-went-off",)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps(Bomb()), pickle.dumps([1])])
def test_what_is_no_checkpoint_is_refused_and_never_run(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(
        state.CheckpointError, match=r"last.pt (cannot be read as|is not) a checkpoint"
    ):
        new_state(composed("model=linear")).load(path)
    assert not os.path.exists("/tmp/the-bomb-went-off")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    run, cfg = trained("model=linear", epochs=1)
    path = tmp_path / "last.pt"
    run.save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(state.CheckpointError, match="cannot be read as a checkpoint"):
        new_state(cfg).load(path)


def test_a_save_that_fails_leaves_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "last.pt"
    state.save({"epoch": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        state.save({"epoch": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_a_full_disk_is_named_and_leaves_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "last.pt"
    state.save({"epoch": 1}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match=r"last.pt could not be written \(File too large\)"):
            state.save({"weights": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [name.name for name in tmp_path.iterdir()] == ["last.pt"]
