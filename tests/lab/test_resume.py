"""Runs that are interrupted or killed resume to the same result as uninterrupted ones."""

import csv
import errno
import importlib
import json
import operator
import os
import random
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from conftest import PROJECT, options, run_folders, start
from PIL import Image
from torch.utils._pytree import tree_leaves

from lab import picture_config, provenance
from lab.signals import SIGNALS

TIMED = ("seconds", "images_per_second")
ARGUMENTS = ("epochs=3", "batch_size=16", "checkpoint.every=0.05", "checkpoint.unit=seconds")


def rows(folder: Path) -> list[dict]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]


def assert_same_result(folder: Path, uninterrupted: Path) -> None:
    """Compare checkpoints, metrics and results exactly, except for timings."""
    saved, expected = (torch.load(path / "last.pt") for path in (folder, uninterrupted))
    assert saved.keys() == expected.keys()
    for key in saved.keys() - {"history", "seconds"}:  # metrics.csv, compared below, and a timing
        leaves, others = (tree_leaves(tree[key]) for tree in (saved, expected))
        for value, other in zip(leaves, others, strict=True):
            same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
            assert same(value, other), key
    best, expected = (torch.load(path / "best.pt") for path in (folder, uninterrupted))
    assert best["epoch"] == expected["epoch"]
    assert all(map(torch.equal, best["model"].values(), expected["model"].values()))
    assert rows(folder) == rows(uninterrupted)
    records = [json.loads((path / "result.json").read_text()) for path in (folder, uninterrupted)]
    assert records[0]["status"] == records[1]["status"] == "finished"
    assert records[0]["test_accuracy"] == records[1]["test_accuracy"]


@pytest.fixture(scope="module")
def references(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.fixture
def uninterrupted(references, script):
    """A finished run of each model, trained once, as the reference for resumed runs."""

    def train_once(model: str) -> Path:
        folder = references / model
        if not folder.exists():
            assert script(f"model={model}", *ARGUMENTS, f"hydra.run.dir={folder}") == 0
        return folder

    return train_once


def kill_at_random(folder: Path, seed: int, *arguments: str) -> Path:
    """Start a run, kill it at a random moment after its first save, and return its folder."""
    process = start(folder, *arguments)
    while not list(folder.glob("runs/**/last.pt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 0.6))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return next(folder.glob("runs/**/last.pt")).parent


KILLS = [(model, seed) for seed in range(9) for model in ("linear", "mlp", "cnn", "vit")]


@pytest.mark.slow  # tests/test_kills.py kills by default
@pytest.mark.parametrize(("model", "seed"), KILLS)
def test_a_killed_run_resumes_to_the_same_result(script, tmp_path, uninterrupted, model, seed):
    reference = uninterrupted(model)
    run = kill_at_random(tmp_path, seed, f"model={model}", *ARGUMENTS)
    assert script(f"resume={run}") == 0
    assert_same_result(run, reference)
    assert len(run_folders(tmp_path)) == 1


# Runs script.py as if no image fitted into memory.
ON_DISK = """
import runpy, sys
sys.path.insert(0, sys.argv[1].removesuffix("script.py"))
import lab.images
lab.images.free_memory = lambda device: 0
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_on_a_fold_of_pictures_on_the_disk_resumes_to_the_result_from_memory(
    script, tmp_path, monkeypatch, seed
):
    pictures, data = tmp_path / "data/pets", f"data_dir={tmp_path / 'data'}"
    pixels = numpy.random.default_rng(0)
    for number in range(260):
        path = pictures / f"c{number % 3 % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 256, (12, 12, 3), dtype=numpy.uint8)).save(path)
    (tmp_path / "own/dataset").mkdir(parents=True)
    (tmp_path / "config/dataset").mkdir(parents=True)
    monkeypatch.setattr(picture_config, "PROJECT", tmp_path)
    options = ("--name", "pets", "--image-size", "12", "--data-dir", str(tmp_path / "data"))
    picture_config.main([str(pictures), *options], "")
    own = ("--config-dir", str(tmp_path / "config"), "dataset=pets", data, "model=cnn")
    more = ("fold=1", "folds=3", "class_weights=balanced", "skip_easy=0.3", "epochs=6")
    asked = (*own, *more, "batch_size=8", "checkpoint.every=0.05", "checkpoint.unit=seconds")
    assert script(*asked, f"hydra.run.dir={tmp_path / 'memory'}") == 0
    monkeypatch.setattr(
        "conftest.command_of", lambda: [sys.executable, "-c", ON_DISK, str(PROJECT / "script.py")]
    )
    run = kill_at_random(tmp_path, seed, *asked)
    monkeypatch.setattr("lab.images.free_memory", lambda device: 0)
    monkeypatch.setattr("sources._loaded", {})
    assert script(f"resume={run}") == 0
    assert_same_result(run, tmp_path / "memory")


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_at_the_next_step_and_prints_how_to_resume(
    script, tmp_path, uninterrupted, number
):
    reference = uninterrupted("mlp")
    process = start(tmp_path, "model=mlp", *ARGUMENTS, "checkpoint.every=1000")
    while not list(tmp_path.glob("runs/**/metrics.csv")):
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    (run,) = run_folders(tmp_path)
    assert process.returncode == 128 + number, output
    assert f"Resume with: python script.py resume={run}" in output and "Traceback" not in output
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"
    (run / "best.pt").write_bytes(b"of an epoch that last.pt knows nothing of")
    assert script(f"resume={run}") == 0
    assert_same_result(run, reference)


@pytest.mark.slow
def test_a_second_interrupt_exits_immediately(tmp_path, script):
    process = start(tmp_path, "model=cnn", "batch_size=640", "epochs=1000", "augmentation=none")
    while not list(tmp_path.glob("runs/**/metrics.csv")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGINT, 130)


@pytest.fixture
def finished(tmp_path, uninterrupted) -> Path:
    return Path(shutil.copytree(uninterrupted("mlp"), tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_resuming_a_finished_run_changes_nothing(script, finished, capfd):
    before = contents(finished)
    assert script(f"resume={finished}") == 0
    assert "is finished after epoch 3: epochs=N continues it" in capfd.readouterr().out
    assert contents(finished) == before


def test_a_finished_run_continues_with_more_epochs(script, finished):
    assert script(f"resume={finished}", "epochs=5") == 0
    assert [row["epoch"] for row in rows(finished)] == ["1", "2", "3", "4", "5"]
    record = json.loads((finished / "result.json").read_text())
    assert record["epochs"] == 5 and record["overrides"][-1] == "epochs=5"
    assert script(f"resume={finished}") == 0  # the run has recorded the new number
    assert len(rows(finished)) == 5


@pytest.mark.parametrize("scheduler", ["plateau", pytest.param("step", marks=pytest.mark.slow)])
def test_parts_of_an_epoch_each_equal_one_run_if_the_schedule_is_per_epoch(
    script, tmp_path, scheduler
):
    arguments = ("model=linear", f"scheduler={scheduler}", "optimizer.lr=0.3", "batch_size=16")
    assert script(*arguments, "epochs=6", "hydra.run.dir=whole") == 0
    assert script(*arguments, "epochs=1", "hydra.run.dir=parts") == 0
    for epochs in range(2, 7):
        assert script("resume=parts", f"epochs={epochs}") == 0
    assert_same_result(tmp_path / "parts", tmp_path / "whole")
    rates = {row["lr"] for row in rows(tmp_path / "whole")}
    assert len(rates) == 6 if scheduler == "step" else 1 < len(rates) < 6


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["plateau", "step", "warmup_cosine", "cosine"])
def test_a_killed_run_resumes_with_every_scheduler(script, tmp_path, scheduler):
    arguments = ("model=linear", *ARGUMENTS, f"scheduler={scheduler}", "epochs=9", "batch_size=8")
    assert script(*arguments, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    run = kill_at_random(tmp_path, 0, *arguments)
    assert script(f"resume={run}") == 0
    assert_same_result(run, tmp_path / "whole")


EVERYTHING = "augmentation=[crop_flip,cutout,mixup,cutmix,randaugment]"
ALONE = [f"augmentation={option}" for option in options("augmentation") if option != "none"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((EVERYTHING, "ema=0.99", "model=mlp"), marks=pytest.mark.slow),
        *(pytest.param((word, "model=linear"), marks=pytest.mark.slow) for word in ALONE),
        pytest.param((EVERYTHING, "model=cnn", "epochs=5"), marks=pytest.mark.slow),
        pytest.param(("ema=0.999", "model=cnn", "epochs=5"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_killed_run_resumes_with_augmentation_and_average(script, tmp_path, words):
    arguments = (*ARGUMENTS, "dataset=digits", "dataset.repeats=1", "limit=640", *words)
    assert script(*arguments, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    run = kill_at_random(tmp_path, 0, *arguments, f"hydra.run.dir={tmp_path / 'runs/killed'}")
    assert script(f"resume={run}") == 0
    assert_same_result(run, tmp_path / "whole")


def test_each_part_of_a_run_records_its_provenance(script, finished, monkeypatch):
    first = json.loads((finished / "result.json").read_text())
    changes = (finished / "changes.diff").read_text()
    monkeypatch.setattr(provenance, "uncommitted_changes", lambda: "another change")
    assert script(f"resume={finished}", "epochs=4") == 0
    record = json.loads((finished / "result.json").read_text())
    keys = ("started", "command", "versions", "commit", "dirty", "device_name", "data_sha256")
    (earlier,) = record["earlier"]
    assert {key: earlier[key] for key in keys} == {key: first[key] for key in keys}
    assert record["started"] > first["started"]
    assert (finished / "changes-2.diff").read_text() == "another change"
    assert (finished / "changes.diff").read_text() == changes
    assert (earlier["changes"], record["changes"]) == ("changes.diff", "changes-2.diff")
    assert script(f"resume={finished}", "epochs=5") == 0
    assert len(json.loads((finished / "result.json").read_text())["earlier"]) == 2


def resume_line(output: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith("Resume with: ")]
    return shlex.split(line)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGUSR2)),
    ],
)
@pytest.mark.parametrize(
    "where", ["lab.machine.choose_device", "sources.load", "training.evaluate"]
)
def test_a_signal_at_any_moment_ends_the_run_with_a_message(
    script, tmp_path, monkeypatch, capfd, data_dir, where, number
):
    """While torch starts, while data is read, and while the test images are evaluated."""
    module, _, name = where.rpartition(".")
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
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    assert script(resume_line(output)[-1]) == 0


def test_an_interrupt_before_the_run_starts_prints_one_word(script, monkeypatch, capfd):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.command_line.for_script", interrupt)
    assert script() == 130
    assert capfd.readouterr().err == "Interrupted.\n"


def test_a_resume_interrupted_before_training_changes_nothing(script, finished, monkeypatch):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("sources.load", interrupted)
    before = contents(finished)
    assert script(f"resume={finished}", "epochs=4") == 143
    assert contents(finished) == before


def test_a_failed_run_records_the_machine_and_the_data(script, tmp_path, monkeypatch):
    monkeypatch.setattr("training.train_epoch", lambda *_: {}["missing"])
    assert script("debug=smoke", "model=linear") == 1
    (run,) = run_folders(tmp_path)
    record = json.loads((run / "result.json").read_text())
    assert record["status"] == "failed"
    known = {"device", "device_name", "threads", "precision", "data_sha256", "parameters"}
    assert known <= record.keys()


def test_a_full_disk_interrupts_a_run_without_a_verdict(
    script, tmp_path, monkeypatch, capfd, data_dir
):
    def full(_, path):
        raise OSError("a sentence") from OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("lab.checkpoint.save", full)
    assert script("debug=smoke", "model=linear", "dataset=digits", "hydra.run.dir=run") == 1
    record = json.loads((tmp_path / "run/result.json").read_text())
    assert (record["status"], record["reason"]) == ("interrupted", "a sentence")
    assert "a sentence" in "".join(capfd.readouterr())
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    assert script("resume=run") == 0
    record = json.loads((tmp_path / "run/result.json").read_text())
    assert record["status"] == "finished" and "reason" not in record


def test_the_batch_size_may_change_between_epochs(script, finished):
    """The schedule counts in the new steps, so it still ends with the run."""
    assert script(f"resume={finished}", "epochs=4", "batch_size=64") == 0
    assert float(rows(finished)[-1]["lr"]) < 1e-5


def test_fewer_epochs_than_already_trained_are_refused(script, finished, capfd):
    result = json.loads((finished / "result.json").read_text())
    (finished / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    before = contents(finished)
    assert script(f"resume={finished}", "epochs=1") == 1
    assert "set more epochs" in capfd.readouterr().err
    assert contents(finished) == before


def test_a_second_process_in_the_same_run_folder_is_refused(script, finished, capfd):
    import filelock

    with filelock.FileLock(finished / ".lock"):
        assert script(f"resume={finished}", "epochs=5") == 1
    assert "is in use: another process is running there" in capfd.readouterr().err


def test_a_run_folder_with_the_old_class_name_of_digits_resumes(script, tmp_path, capfd):
    assert script("debug=smoke", "model=linear", "dataset=digits", "hydra.run.dir=old") == 0
    config = tmp_path / "old/config.yaml"
    config.write_text(config.read_text().replace("sources.Digits", "datasets.Digits"))
    assert script("resume=old", "epochs=2") == 0
    assert "_target_: sources.Digits" in config.read_text()
    assert len(rows(tmp_path / "old")) == 2


def own_files(folder: Path) -> dict[str, bytes]:
    """Hydra writes its own record, .hydra/, before a run can refuse anything."""
    return {name: text for name, text in contents(folder).items() if ".hydra" not in name}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=1"], "holds another run, with seed=0, not seed=1"),
        (["optimizer.lr=0.5"], "with optimizer.lr=0.002, not optimizer.lr=0.5"),
        (["model=linear"], "model._target_=models.MLP"),
        (["epochs=9"], "with epochs=3, not epochs=9: choose another folder."),
        (["~optimizer.betas"], r"optimizer.betas=\[0.9, 0.999\]"),
        (["dataset=fashion"], "dataset.source._target_="),
    ],
)
def test_a_folder_is_not_continued_by_another_config(script, finished, capfd, words, sentence):
    before = own_files(finished)
    assert script("model=mlp", *ARGUMENTS, f"hydra.run.dir={finished}", *words) == 1
    error = capfd.readouterr().err
    assert re.search(sentence, error) and f"resume={finished}" in error
    assert own_files(finished) == before


def test_the_same_config_in_the_same_folder_is_the_same_run(script, finished, capfd):
    elsewhere = ("checkpoint.every=7", "data_dir=" + os.environ["DATA_DIR"])
    assert script("model=mlp", *ARGUMENTS, f"hydra.run.dir={finished}", *elsewhere) == 0
    assert "is finished after epoch 3" in capfd.readouterr().out


@pytest.mark.parametrize(
    "word", ["seed=1", "val_size=0.1", "limit=64", "dataset.mean=[0.5]", "dataset.image_size=14"]
)
def test_resuming_never_moves_images_between_the_parts_of_the_split(script, finished, capfd, word):
    before = contents(finished)
    assert script(f"resume={finished}", "epochs=4", word) == 1
    key = word.partition("=")[0]
    error = capfd.readouterr().err
    assert f"{word.split('=')[0]}=" in error and f"Leave {key} out, or start a new run." in error
    assert contents(finished) == before


def alter(folder: Path, **changes) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_other_images_than_before_are_refused(script, finished, capfd):
    alter(finished, data_sha256="0" * 64)
    assert script(f"resume={finished}", "epochs=4") == 1
    assert "the images are not those that" in capfd.readouterr().err


def test_what_differs_from_the_earlier_part_is_reported_in_one_line(script, finished, capfd):
    versions = json.loads((finished / "result.json").read_text())["versions"]
    alter(finished, threads=7, commit="a" * 40, versions=versions | {"torch": "1.0"})
    (finished / "changes.diff").write_text("other")
    assert script(f"resume={finished}", "epochs=4") == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "earlier part" in line]
    for part in ("threads 7 → 1", f"commit {'a' * 40} → ", "torch 1.0 → ", "uncommitted changes"):
        assert part in line
    assert line in (finished / "script.log").read_text().replace("INFO ", "\n").splitlines()
    assert script(f"resume={finished}", "epochs=5") == 0
    assert "earlier part" not in capfd.readouterr().out


@pytest.mark.parametrize("again", ["resume", "the same command"])
def test_epochs_whose_checkpoint_has_disappeared_are_not_trained_again(
    script, finished, capfd, again
):
    (finished / "last.pt").unlink()
    alter(finished, status="interrupted")
    before = own_files(finished)
    command = [f"resume={finished}"]
    if again != "resume":
        command = ["model=mlp", *ARGUMENTS, f"hydra.run.dir={finished}"]
    assert script(*command) == 1
    assert "has 3 epochs in metrics.csv but no last.pt to resume from" in capfd.readouterr().err
    assert own_files(finished) == before


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(script, tmp_path):
    words = ("debug=smoke", "epochs=3", "model=linear", "dataset=digits", "checkpoint.every=2")
    assert script(*words, "hydra.run.dir=run") == 0
    run = tmp_path / "run"
    lines = (run / "metrics.csv").read_text().splitlines()
    (run / "metrics.csv").write_text("\n".join(lines[:2]) + "\n")  # one epoch, not saved yet
    (run / "last.pt").unlink()
    alter(run, status="running")
    assert script("resume=run") == 0
    assert len(rows(run)) == 3


def test_the_checkpoint_of_another_seed_is_refused(script, tmp_path, capfd):
    words = ("debug=smoke", "model=linear", "dataset=digits")
    for seed in (0, 1):
        assert script(*words, f"seed={seed}", f"hydra.run.dir=run{seed}") == 0
    shutil.copy(tmp_path / "run1/last.pt", tmp_path / "run0/last.pt")
    assert script("resume=run0", "epochs=2") == 1
    assert "last.pt is from a run with seed=1, not 0" in capfd.readouterr().err
