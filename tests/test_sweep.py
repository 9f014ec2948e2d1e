"""Sweeps that are given again, and their summary."""

import csv
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import start

import record

GRID = ("--multirun", "name=mine", "debug=smoke", "model=linear")


def jobs(root: Path) -> dict[str, dict]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(root.glob("runs/mine/*/result.json"))
    }


def test_the_same_command_goes_on(script, tmp_path, capfd):
    assert script(*GRID, "seed=0,1") == 0
    first = jobs(tmp_path)
    assert [name.rpartition("-")[0] for name in first] == ["seed=0", "seed=1"]
    output = capfd.readouterr().out
    assert (
        "2 jobs: 0 finished, 0 queued, 0 running elsewhere, 0 half-done, 0 failed before, 2 new"
        in output
    )
    assert script(*GRID, "seed=0,1,2") == 0  # more of them: the old ones keep their folders
    assert "3 jobs: 2 finished" in capfd.readouterr().out
    again = jobs(tmp_path)
    assert len(again) == 3 and all(again[name] == first[name] for name in first)


def test_a_default_that_changed_makes_a_new_job(script, tmp_path):
    assert script(*GRID, "seed=0") == 0
    assert script(*GRID, "seed=0", "batch_size=32") == 0
    assert len(jobs(tmp_path)) == 2


def test_where_the_data_lie_makes_no_new_job(script, tmp_path, data_dir, capfd):
    assert script(*GRID, "seed=0") == 0
    assert script(*GRID, "seed=0", f"data_dir={data_dir}", "checkpoint.every=2") == 0
    assert "1 jobs: 1 finished" in capfd.readouterr().out


def test_jobs_that_are_the_same_run_once(script, tmp_path, capfd):
    assert script(*GRID, "seed=0,0") == 0
    assert len(jobs(tmp_path)) == 1
    assert "1 of the 2 jobs have the config of another" in capfd.readouterr().out


def test_without_a_name_every_sweep_is_a_new_one(script, tmp_path):
    for _ in range(2):
        assert script("--multirun", "debug=smoke", "model=linear", "seed=0,1") == 0
    assert len(list(tmp_path.glob("runs/*/*_sweep"))) == 2


def test_a_failing_job_fails_alone_and_runs_again(script, tmp_path, capfd):
    sizes = "model.hidden_sizes=[8],[0],[9]"
    assert script("--multirun", "name=mine", "debug=smoke", sizes) == 1
    output = capfd.readouterr().out
    assert sorted(run["status"] for run in jobs(tmp_path).values()) == [
        "failed", "finished", "finished",
    ]  # fmt: skip
    assert "- failed: " in output and "hidden_sizes=[0]" in output
    assert script("--multirun", "name=mine", "debug=smoke", sizes) == 1
    assert (
        "2 finished, 0 queued, 0 running elsewhere, 0 half-done, 1 failed" in capfd.readouterr().out
    )


def test_fail_fast_stops_at_the_first(script, tmp_path):
    sizes = "model.hidden_sizes=[0],[8]"
    assert script("--multirun", "name=mine", "debug=smoke", "fail_fast=true", sizes) == 1
    assert [run["status"] for run in jobs(tmp_path).values()] == ["failed"]


def test_a_half_done_job_goes_on_and_a_running_one_is_left_alone(script, tmp_path, capfd):
    assert script(*GRID, "seed=0,1") == 0
    for name, result in jobs(tmp_path).items():
        folder = tmp_path / "runs/mine" / name
        record.write_json(folder / "result.json", result | {"status": "running"})
    capfd.readouterr()
    with record.locked(next(tmp_path.glob("runs/mine/seed=1-*"))):
        assert script(*GRID, "seed=0,1") == 0
    output = capfd.readouterr().out
    assert "2 jobs: 0 finished, 0 queued, 1 running elsewhere, 1 half-done" in output
    assert "resumed after epoch 1" in output
    assert sorted(run["status"] for run in jobs(tmp_path).values()) == ["finished", "running"]


def figures(folder: Path) -> list[dict]:
    with (folder / "results.csv").open() as file:
        timed = ("seconds", "folder")
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(3))
def test_a_sweep_that_was_killed_and_is_given_again_ends_in_the_same_table(
    tmp_path, data_dir, monkeypatch, moment
):
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    command = ("-m", "name=mine", "model=linear,cnn", "seed=0,1", "epochs=4", "batch_size=16")
    (tmp_path / "undisturbed").mkdir()
    assert start(tmp_path / "undisturbed", *command).wait() == 0
    process = start(tmp_path, *command, "checkpoint.unit=seconds", "checkpoint.every=0.05")
    while not list(tmp_path.glob("runs/mine/*/last.pt")):
        time.sleep(0.01)
    time.sleep(random.Random(moment).uniform(0, 4))
    process.kill()
    process.wait()
    assert start(tmp_path, *command).wait() == 0
    assert figures(tmp_path / "runs/mine") == figures(tmp_path / "undisturbed/runs/mine")


def processes_of_jobs(root: Path) -> list[int]:
    """The ids of the processes that the local launcher started for jobs below `root`."""
    commands = {path: path.read_text() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [
        int(path.parent.name)
        for path, command in commands.items()
        if "submitit.core._submit" in command and f"{root}/runs" in command
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the jobs' processes in /proc")
def test_a_job_that_is_killed_costs_only_itself(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    command = ("-m", "name=mine", "model=linear,cnn", "seed=0,1", "epochs=4", "batch_size=16")
    (tmp_path / "undisturbed").mkdir()
    assert start(tmp_path / "undisturbed", *command).wait() == 0
    local = (*command, "hydra/launcher=local")
    process = start(tmp_path, *local, "checkpoint.unit=seconds", "checkpoint.every=0.05")
    while not list(tmp_path.glob("runs/mine/*/last.pt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    os.kill(processes_of_jobs(tmp_path)[0], signal.SIGKILL)
    assert process.wait() == 1
    statuses = sorted(run["status"] for run in jobs(tmp_path).values())
    assert statuses == ["finished", "finished", "finished", "running"]
    assert start(tmp_path, *local).wait() == 0
    assert figures(tmp_path / "runs/mine") == figures(tmp_path / "undisturbed/runs/mine")


def test_the_summary_tells_what_varied_over_seeds(script, call, tmp_path, capfd):
    assert script("-m", "name=mine", "debug=smoke", "model=linear,mlp", "seed=0,1") == 0
    table = (tmp_path / "runs/mine/results.md").read_text()
    capfd.readouterr()
    assert call("results.py", "runs/mine") == 0
    assert capfd.readouterr().out == table
    lines = table.splitlines()
    assert lines[0].split()[1] == "model" and len(lines) == 4
    assert "±" in lines[2] and table.count("best") == 1
    with (tmp_path / "runs/mine/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["model"], row["seed"]) for row in rows} == {
        ("linear", "0"), ("linear", "1"), ("mlp", "0"), ("mlp", "1"),
    }  # fmt: skip
    assert (tmp_path / "runs/mine/results.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_runs_is_refused(call, tmp_path, capfd):
    assert call("results.py", str(tmp_path)) == 1
    assert "holds no run" in capfd.readouterr().err


def test_the_recipe_of_the_practical(script, tmp_path):
    assert script("-m", "sweep=practical", "debug=smoke", "name=mine", "model=linear") == 0
    assert {(run["dataset"], run["optimizer"]) for run in jobs(tmp_path).values()} == {
        ("mnist", "adamw"), ("fashion", "adamw"),
    }  # fmt: skip


@pytest.mark.parametrize("state", ["clean", "changed", "untracked", "none"])
def test_clean_git(script, tmp_path, monkeypatch, capfd, state):
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "file").write_text("1")
    monkeypatch.setattr(record, "PROJECT", repository)
    if state != "none":
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "1"]):
            subprocess.run(["git", *command], cwd=repository, check=True)
    if state == "changed":
        (repository / "file").write_text("2")
    if state == "untracked":
        (repository / "other").write_text("2")
    code = script("hydra/callbacks=clean_git", "debug=smoke", "model=linear")
    assert (code == 0) == (state == "clean"), capfd.readouterr()
    assert bool(list(tmp_path.glob("runs/**/result.json"))) == (state == "clean")
