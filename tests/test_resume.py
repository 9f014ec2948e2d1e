"""Runs that are stopped or killed, for real, and go on to the same end as one that never was."""

import csv
import importlib
import json
import operator
import os
import random
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import run_folders, start
from torch.utils._pytree import tree_leaves

import provenance
from config.errors import SIGNALS

TIMED = ("seconds", "images_per_second")
ARGUMENTS = ("epochs=3", "batch_size=16", "checkpoint.every=0.05", "checkpoint.unit=seconds")


def rows(folder: Path) -> list[dict]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]


def assert_same_end(folder: Path, undisturbed: Path) -> None:
    """Every tensor of last.pt, metrics line by line, times apart."""
    saved, expected = (torch.load(path / "last.pt") for path in (folder, undisturbed))
    assert saved.keys() == expected.keys()
    for key in saved.keys() - {"history", "seconds"}:  # the rows of metrics.csv, and a time
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

    def of(model: str) -> Path:
        folder = references / model
        if not folder.exists():
            assert script(f"model={model}", *ARGUMENTS, f"hydra.run.dir={folder}") == 0
        return folder

    return of


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
    [pytest.param(*kill, marks=[pytest.mark.slow] if kill != ("cnn", 0) else []) for kill in KILLS],
)
def test_a_run_that_was_killed_ends_as_if_it_never_was(script, tmp_path, undisturbed, model, seed):
    reference = undisturbed(model)
    run = kill_at_random(tmp_path, seed, f"model={model}", *ARGUMENTS)
    assert script(f"resume={run}") == 0
    assert_same_end(run, reference)
    assert len(run_folders(tmp_path)) == 1


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, marks=pytest.mark.slow),
    ],
)
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


def test_each_part_of_a_run_tells_where_it_comes_from(script, finished, monkeypatch):
    first = json.loads((finished / "result.json").read_text())
    changes = (finished / "changes.diff").read_text()
    monkeypatch.setattr(provenance, "uncommitted_changes", lambda: "another change")
    assert script(f"resume={finished}", "epochs=4") == 0
    record = json.loads((finished / "result.json").read_text())
    keys = ("started", "command", "versions", "commit", "dirty", "device_name", "data_sha256")
    (earlier,) = record["earlier"]
    assert {key: earlier[key] for key in keys} == {key: first[key] for key in keys}
    assert record["started"] > first["started"]
    assert (finished / "changes.diff").read_text() == "another change"
    assert (finished / "changes-1.diff").read_text() == changes
    assert script(f"resume={finished}", "epochs=5") == 0
    assert len(json.loads((finished / "result.json").read_text())["earlier"]) == 2


def resume_line(output: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith("Go on with ")]
    return shlex.split(line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("where", ["training.prepare", "datasets.load", "training.evaluate"])
def test_a_signal_at_any_moment_leaves_with_a_message(
    script, tmp_path, monkeypatch, capfd, where, number
):
    """While torch starts, while data are read, and in the evaluation of the test images."""
    module, name = where.split(".")
    function = getattr(importlib.import_module(module), name)

    def interrupted(*arguments, **named):
        if where != "training.evaluate" or len(arguments[1]) == 160:  # the test images
            os.kill(os.getpid(), number)
        return function(*arguments, **named)

    monkeypatch.setattr(where, interrupted)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    folder = tmp_path / "with space"
    assert script("debug=smoke", "model=linear", f"hydra.run.dir='{folder}'") == 128 + number
    output = "".join(capfd.readouterr())
    assert resume_line(output)[-1] == f"resume={folder}" and "Traceback" not in output
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert script(resume_line(output)[-1]) == 0


def test_an_interrupt_before_there_is_a_folder_is_told_in_a_word(script, monkeypatch, capfd):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("command.of_script", interrupt)
    assert script() == 130
    assert capfd.readouterr().err == "Interrupted.\n"


def test_a_resume_that_is_interrupted_before_it_trains_changes_nothing(
    script, finished, monkeypatch
):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("datasets.load", interrupted)
    before = contents(finished)
    assert script(f"resume={finished}", "epochs=4") == 143
    assert contents(finished) == before


def test_a_run_that_failed_tells_the_machine_and_the_data(script, tmp_path, monkeypatch):
    monkeypatch.setattr("training.train_epoch", lambda *_: {}["missing"])
    assert script("debug=smoke", "model=linear") == 1
    (run,) = run_folders(tmp_path)
    record = json.loads((run / "result.json").read_text())
    assert record["status"] == "failed"
    known = {"device", "device_name", "threads", "precision", "data_sha256", "parameters"}
    assert known <= record.keys()


def test_an_epochs_steps_may_change_between_epochs(script, finished):
    """The schedule counts in the new steps, so it ends where the run ends."""
    assert script(f"resume={finished}", "epochs=4", "batch_size=64") == 0
    assert float(rows(finished)[-1]["lr"]) < 1e-5


def test_fewer_epochs_than_there_were_are_refused(script, finished, capfd):
    result = json.loads((finished / "result.json").read_text())
    (finished / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    before = contents(finished)
    assert script(f"resume={finished}", "epochs=1") == 1
    assert "give it more epochs" in capfd.readouterr().err
    assert contents(finished) == before


def test_two_processes_in_one_folder(script, finished, capfd):
    import filelock

    with filelock.FileLock(finished / ".lock"):
        assert script(f"resume={finished}", "epochs=5") == 1
    assert "is in use: another process is running there" in capfd.readouterr().err
