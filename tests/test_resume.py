"""Runs that are stopped or killed, for real, and go on to the same end as one that never was."""

import csv
import json
import operator
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import run_folders, start
from torch.utils._pytree import tree_leaves

TIMED = ("seconds", "images_per_second")
ARGUMENTS = ("epochs=3", "batch_size=16", "checkpoint.every=0.05", "checkpoint.unit=seconds")


def rows(folder: Path) -> list[dict]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]


def assert_same_end(folder: Path, undisturbed: Path) -> None:
    """Weights, optimizer and generators tensor by tensor, metrics line by line, times apart."""
    saved, expected = (torch.load(path / "last.pt") for path in (folder, undisturbed))
    for key in ("model", "optimizer", "best_weights", "generators"):
        leaves, others = (tree_leaves(tree[key]) for tree in (saved, expected))
        for value, other in zip(leaves, others, strict=True):
            same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
            assert same(value, other), key
    best, expected = (torch.load(path / "best.pt") for path in (folder, undisturbed))
    assert best["epoch"] == expected["epoch"]
    assert all(map(torch.equal, best["model"].values(), expected["model"].values()))
    assert rows(folder) == rows(undisturbed)
    records = [json.loads((path / "result.json").read_text()) for path in (folder, undisturbed)]
    assert records[0]["status"] == records[1]["status"] == "finished"
    assert records[0]["test_accuracy"] == records[1]["test_accuracy"]


@pytest.fixture(scope="module")
def references(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.fixture
def undisturbed(references, script):
    """A finished run of each model, made once: a killed one must end like it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that are killed: sums depend on it

    def of(model: str) -> Path:
        folder = references / model
        if not folder.exists():
            assert script(f"model={model}", *ARGUMENTS, f"hydra.run.dir={folder}") == 0
        return folder

    yield of
    torch.set_num_threads(threads)


def kill_at_random(folder: Path, seed: int, *arguments: str) -> Path:
    """SIGKILL at a random moment after the first save; the run folder."""
    process = start(folder, *arguments)
    while not list(folder.glob("runs/**/last.pt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 0.6))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return next(folder.glob("runs/**/last.pt")).parent


KILLS = [(model, seed) for seed in range(9) for model in ("linear", "mlp", "cnn", "vit")]


@pytest.mark.parametrize(
    ("model", "seed"),
    [
        pytest.param(*kill, marks=[pytest.mark.slow] if kill not in KILLS[1:4] else [])
        for kill in KILLS
    ],
)
def test_a_run_that_was_killed_ends_as_if_it_never_was(script, tmp_path, undisturbed, model, seed):
    reference = undisturbed(model)
    run = kill_at_random(tmp_path, seed, f"model={model}", *ARGUMENTS)
    assert script(f"resume={run}") == 0
    assert_same_end(run, reference)
    assert len(run_folders(tmp_path)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_saves_at_the_next_step_and_says_how_to_go_on(
    script, tmp_path, undisturbed, number
):
    reference = undisturbed("mlp")
    process = start(tmp_path, "model=mlp", *ARGUMENTS, "checkpoint.every=1000")
    while not list(tmp_path.glob("runs/**/metrics.csv")):
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    (run,) = run_folders(tmp_path)
    assert process.returncode == 128 + number, output
    assert f"python script.py resume={run}" in output and "Traceback" not in output
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"
    (run / "best.pt").write_bytes(b"of an epoch that last.pt knows nothing of")
    assert script(f"resume={run}") == 0
    assert_same_end(run, reference)


def test_a_second_interrupt_leaves_at_once(tmp_path, script):
    process = start(tmp_path, "model=cnn", "batch_size=640", "epochs=1000", "augmentation=none")
    while not list(tmp_path.glob("runs/**/metrics.csv")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGINT, 130)


@pytest.fixture
def finished(tmp_path, undisturbed) -> Path:
    return Path(shutil.copytree(undisturbed("mlp"), tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_finished_run_says_so_and_changes_nothing(script, finished, capfd):
    before = contents(finished)
    assert script(f"resume={finished}") == 0
    assert "is finished after 3 epochs: epochs=N continues it" in capfd.readouterr().out
    assert contents(finished) == before


def test_a_finished_run_goes_on_with_more_epochs(script, finished):
    assert script(f"resume={finished}", "epochs=5") == 0
    assert [row["epoch"] for row in rows(finished)] == ["1", "2", "3", "4", "5"]
    record = json.loads((finished / "result.json").read_text())
    assert record["epochs"] == 5 and record["overrides"][-1] == "epochs=5"
    assert script(f"resume={finished}") == 0  # the new number is the run's own now
    assert len(rows(finished)) == 5


def test_two_processes_in_one_folder(script, finished, capfd):
    import filelock

    with filelock.FileLock(finished / ".lock"):
        assert script(f"resume={finished}", "epochs=5") == 1
    assert "is in use: another process is running there" in capfd.readouterr().err
