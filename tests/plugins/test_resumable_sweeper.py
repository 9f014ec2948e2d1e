"""Sweeps that are resumed, and their summary."""

import contextlib
import csv
import hashlib
import itertools
import json
import os
import random
import re
import shlex
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import composed, start
from omegaconf import OmegaConf

from hydra_plugins import slurm_launcher
from lab import files, provenance, record, schema
from lab.errors import Refusal
from sweeps import jobs as sweep_jobs
from sweeps import live

GRID = ("--multirun", "name=mine", "debug=smoke", "model=linear")


def jobs(root: Path) -> dict[str, dict]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(root.glob("runs/mine/*/result.json"))
    }


def test_repeating_a_sweep_skips_finished_jobs(script, tmp_path, capfd):
    assert script(*GRID, "seed=0,1") == 0
    first = jobs(tmp_path)
    assert [name.rpartition("-")[0] for name in first] == ["seed=0", "seed=1"]
    output = capfd.readouterr().out
    assert "2 jobs: 2 new\n" in output
    assert script(*GRID, "seed=0,1,2") == 0  # one more job; the others keep their folders
    assert "3 jobs: 2 finished, 1 new\n" in capfd.readouterr().out
    repeated = jobs(tmp_path)
    assert len(repeated) == 3 and all(repeated[name] == first[name] for name in first)
    (damaged,) = tmp_path.glob("runs/mine/seed=1-*")
    (damaged / "result.json").write_text("{")
    assert script(*GRID, "seed=0,1,2") == 1
    output = capfd.readouterr().out
    assert "3 jobs: 2 finished, 1 damaged\n" in output
    assert f"{damaged.name} failed: {damaged}/result.json is damaged" in output
    assert f"- damaged: {damaged}" in output


def test_jobs_that_ran_on_different_code_are_reported(tmp_path, monkeypatch, capfd):
    now, before = "b" * 40, "a" * 40
    monkeypatch.setattr(provenance, "collect", lambda: {"commit": now})
    monkeypatch.setattr(provenance, "uncommitted_changes", lambda: "+edit\n")
    codes = [(now, "+edit\n"), (before, "+edit\n"), (now, ""), (now, "+another\n")]
    status = {}
    for number, (commit, changes) in enumerate(codes):
        for word in ("finished", "interrupted", "failed"):
            folder = tmp_path / f"{number}-{word}"
            folder.mkdir()
            result = {"status": "failed", "overrides": [], "commit": commit}
            files.write_json(folder / "result.json", result)
            files.write_text(folder / "changes.diff", changes)
            status[folder] = word
    sweep_jobs.announce(status)
    assert (
        "6 of them ran on code that differs from the current code (bbbbbbbbb with "
        "uncommitted changes): 2 on aaaaaaaaa with uncommitted changes, 2 on bbbbbbbbb, "
        "2 on bbbbbbbbb with uncommitted changes"
    ) in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../x", "name=../x is not allowed: it must name a folder below runs/"),
        ("a/../../b", "is not allowed"),
        ("''", "name= is not allowed"),
        (".", "name=. is not allowed"),
        ("a,b", "name is for the whole sweep"),
    ],
)
def test_invalid_sweep_names_are_refused(script, tmp_path, capfd, name, message):
    assert script("-m", f"name={name}", "seed=0,1") == 1
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_does_not_compose_creates_no_folder(script, tmp_path, capfd):
    assert script("-m", "model=linear,mpl") == 1
    assert "Did you mean mlp?" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_changed_setting_makes_a_new_job(script, tmp_path):
    assert script(*GRID, "seed=0") == 0
    assert script(*GRID, "seed=0", "batch_size=32") == 0
    assert len(jobs(tmp_path)) == 2


def test_data_dir_and_checkpoint_settings_make_no_new_job(script, tmp_path, data_dir, capfd):
    assert script(*GRID, "seed=0") == 0
    assert script(*GRID, "seed=0", f"data_dir={data_dir}", "checkpoint.every=2") == 0
    assert "1 job: 1 finished\n" in capfd.readouterr().out


@pytest.mark.parametrize("values", ["seed=0,0", "seed=0,00", "trial=1,2"])
def test_duplicate_jobs_run_once(script, tmp_path, capfd, values):
    assert script(*GRID, values) == 0
    assert len(jobs(tmp_path)) == 1
    assert "1 of the 2 jobs are skipped: they have the config of another." in capfd.readouterr().out


@pytest.mark.slow
def test_sweeps_without_a_name_get_new_folders(script, tmp_path):
    for _ in range(2):
        assert script("--multirun", "debug=smoke", "model=linear", "seed=0,1") == 0
    assert len(list(tmp_path.glob("runs/*/*_sweep"))) == 2


def test_a_failed_job_does_not_affect_the_others_and_is_retried(script, tmp_path, capfd):
    sizes = "model.hidden_sizes=[8],[0],[9]"
    assert script("--multirun", "name=mine", "debug=smoke", sizes) == 1
    output = capfd.readouterr().out
    assert sorted(run["status"] for run in jobs(tmp_path).values()) == [
        "failed", "finished", "finished",
    ]  # fmt: skip
    assert "hidden_sizes=_0_-" in output and " failed: model (models.MLP): hidden_sizes" in output
    assert "- failed: " in output
    assert script("--multirun", "name=mine", "debug=smoke", sizes) == 1
    assert "3 jobs: 2 finished, 1 failed before\n" in capfd.readouterr().out


@pytest.mark.parametrize("code", [0, 3])
def test_a_model_that_exits_fails_and_the_sweep_goes_on(script, tmp_path, monkeypatch, capfd, code):
    (tmp_path / f"leaving{code}.py").write_text(
        "import models\n\n\nclass Net(models.Linear):\n"
        f"    def forward(self, images):\n        exit({code})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert script(*GRID, f"model._target_=leaving{code}.Net,models.Linear") == 1
    assert [run["status"] for run in jobs(tmp_path).values()] == ["failed", "finished"]
    assert (
        f"failed: exit({code}) was called ({tmp_path}/leaving{code}.py:6: "
        in capfd.readouterr().out
    )


def test_fail_fast_stops_after_the_first_failure(script, tmp_path):
    sizes = "model.hidden_sizes=[0],[8]"
    assert script("--multirun", "name=mine", "debug=smoke", "fail_fast=true", sizes) == 1
    assert [run["status"] for run in jobs(tmp_path).values()] == ["failed"]


def run_elsewhere(folder: Path, result: dict, monkeypatch) -> None:
    """Lock the folder, as a run does, until somebody waits for it."""
    held = ExitStack()
    held.enter_context(record.locked(folder))

    def end(_: float) -> None:
        files.write_json(folder / "result.json", result)
        held.close()

    monkeypatch.setattr(sweep_jobs, "time", SimpleNamespace(sleep=end, monotonic=time.monotonic))


ONE_AT_A_TIME = ("hydra/launcher=local", "hydra.launcher.parallel=1")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ONE_AT_A_TIME])
def test_a_job_that_another_command_begins_at_the_same_time_is_waited_for(
    script, tmp_path, monkeypatch, capfd, more
):
    assert script(*GRID, "seed=0,1") == 0
    for result in tmp_path.glob("runs/mine/seed=*/result.json"):
        result.rename(tmp_path / result.parent.name[:6])
    (elsewhere,) = tmp_path.glob("runs/mine/seed=1-*")
    (elsewhere / "config.yaml").unlink()  # it has begun, but not written anything yet
    done = json.loads((tmp_path / "seed=1").read_text())
    run_elsewhere(elsewhere, done, monkeypatch)
    capfd.readouterr()
    assert script(*GRID, *more, "seed=0,1") == 0
    output = capfd.readouterr().out
    assert f"{elsewhere.name} is running elsewhere\n" in output and "failed" not in output
    assert {run["status"] for run in jobs(tmp_path).values()} == {"finished"}


def test_an_interrupted_job_resumes_and_a_running_one_is_waited_for(
    script, tmp_path, monkeypatch, capfd
):
    assert script(*GRID, "seed=0,1") == 0
    done = jobs(tmp_path)
    for name, result in done.items():
        folder = tmp_path / "runs/mine" / name
        files.write_json(folder / "result.json", result | {"status": "running"})
    elsewhere = next(tmp_path.glob("runs/mine/seed=1-*"))
    run_elsewhere(elsewhere, done[elsewhere.name], monkeypatch)
    capfd.readouterr()
    assert script(*GRID, "seed=0,1") == 0
    output = capfd.readouterr().out
    assert "2 jobs: 1 running elsewhere, 1 to resume\n" in output
    assert "resumed after epoch 1" in output
    assert f"Waiting for jobs that run elsewhere: {elsewhere.name}." in output
    assert {run["status"] for run in jobs(tmp_path).values()} == {"finished"}


def read_results(folder: Path) -> list[dict]:
    with (folder / "results.csv").open() as file:
        timed = ("seconds", "folder")
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


EIGHT = ("-m", "name=mine", "model=linear,cnn", "seed=0,1,2,3", "epochs=4", "batch_size=16")
LOCAL = (*EIGHT, "hydra/launcher=local", "checkpoint.unit=seconds", "checkpoint.every=0.05")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_dir) -> list[dict]:
    """The table of an uninterrupted sweep of eight jobs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(data_dir))
        assert start(folder, *EIGHT).wait() == 0
    return read_results(folder / "runs/mine")


@pytest.fixture
def begin(tmp_path, data_dir, monkeypatch):
    """Start a sweep; return once `saved` of its jobs have saved a checkpoint."""
    monkeypatch.setenv("DATA_DIR", str(data_dir))

    def begin(*arguments: str, saved: int = 0) -> subprocess.Popen:
        process = start(tmp_path, *arguments)
        while len(list(tmp_path.glob("runs/mine/*/last.pt"))) < saved:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        return process

    return begin


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(3))
def test_a_killed_sweep_resumes_to_the_same_table(begin, uninterrupted, tmp_path, moment):
    process = begin(*EIGHT, "checkpoint.unit=seconds", "checkpoint.every=0.05", saved=1)
    time.sleep(random.Random(moment).uniform(0, 4))
    process.kill()
    process.wait()
    assert begin(*EIGHT).wait() == 0
    assert read_results(tmp_path / "runs/mine") == uninterrupted


def find_job_processes(root: Path) -> list[int]:
    """Return the ids of the processes that the local launcher runs for jobs below `root`.

    Their standard output is a file there.
    """
    ids = []
    for output in Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):  # the process ended, or belongs to another user
            if str(output.readlink()).startswith(f"{root}/runs"):
                ids.append(int(output.parts[2]))
    return ids


needs_proc = pytest.mark.skipif(
    not Path("/proc").exists(), reason="finds the jobs' processes in /proc"
)


@pytest.mark.slow
@needs_proc
def test_a_killed_local_job_does_not_affect_the_others(begin, uninterrupted, tmp_path):
    process = begin(*LOCAL, saved=1)
    os.kill(find_job_processes(tmp_path)[0], signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert output.count("failed: the process ended without an answer, killed by SIGKILL") == 1
    assert output.count(" on validation\n") == 7
    assert begin(*LOCAL).wait() == 0
    assert read_results(tmp_path / "runs/mine") == uninterrupted


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("seed", range(2))
def test_a_repeatedly_killed_local_sweep_resumes_to_the_same_table(
    begin, uninterrupted, tmp_path, seed
):
    generator = random.Random(seed)
    for attempt in itertools.count(1):
        process = begin(*LOCAL)
        try:
            assert process.wait(attempt * generator.uniform(1, 4)) == 0, process.stdout.read()
            break
        except subprocess.TimeoutExpired:
            process.kill()
            for job in find_job_processes(tmp_path):
                os.kill(job, signal.SIGKILL)
            process.communicate()
    assert attempt > 1
    assert read_results(tmp_path / "runs/mine") == uninterrupted


@needs_proc
@pytest.mark.slow
def test_ctrl_c_also_ends_the_local_jobs(begin, tmp_path):
    long = ("model=linear", "seed=0,1", "batch_size=1", "compile=false", "epochs=1000")
    saving = ("checkpoint.unit=seconds", "checkpoint.every=0.05")
    where = ("hydra/launcher=local",)
    process = begin("-m", "name=mine", *where, *long, *saving, saved=2)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130 and "Traceback" not in output
    assert [run["status"] for run in jobs(tmp_path).values()] == ["interrupted"] * 2
    assert find_job_processes(tmp_path) == []
    (line,) = [line for line in output.splitlines() if line.startswith("Resume with: ")]
    assert shlex.split(line)[2:] == [
        "python",
        "script.py",
        "-m",
        "name=mine",
        *where,
        *long,
        *saving,
    ]


@pytest.fixture
def interrupted(script, monkeypatch, capfd):
    """Interrupt a sweep while its first job reads the data; return the arguments of the command
    that it prints to resume it."""
    import sources

    def interrupted(*arguments: str) -> list[str]:
        def load(*_):
            os.kill(os.getpid(), signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(sources, "load", load)
            assert script(*arguments) == 130
        output = "".join(capfd.readouterr())
        (line,) = [line for line in output.splitlines() if line.startswith("Resume with: ")]
        python, file, *words = shlex.split(line.removeprefix("Resume with: "))
        assert (python, file) == ("python", "script.py") and "Traceback" not in output
        return words

    return interrupted


SMALL = ("debug=smoke", "model=linear", "seed=0,1")
slow = pytest.mark.slow
NAMED = [  # what is typed, how the printed command ends
    (["-m", *SMALL], r"name=20\d\d-\d\d-\d\d/[\d.-]+_sweep"),
    pytest.param(["-m", *SMALL, "name=it's a=b (1) ~ü"], r"name=it's a=b \(1\) ~ü", marks=slow),
    pytest.param(["-m", *SMALL, "name=${now:%Y}/${now:%f}"], r"name=20\d\d/\d+", marks=slow),
    (["-m", "name=mine", *SMALL], "seed=0,1"),
    pytest.param(["-m", *SMALL, "name='a,b'"], "name='a,b'", marks=slow),
    ([*SMALL, "hydra.mode=MULTIRUN", "hydra.sweep.dir=at/a=b"], r"hydra.sweep.dir=at/a=b"),
]


@pytest.mark.parametrize(("typed", "end"), NAMED, ids=lambda value: str(value[-1]))
def test_an_interrupted_sweep_says_how_to_resume_the_sweep(
    interrupted, script, tmp_path, capfd, typed, end
):
    words = interrupted(*typed)
    assert re.fullmatch(end, words[-1])
    assert [word for word in words if word not in typed] == words[len(typed) :] or "${" in typed[-1]
    (before,) = tmp_path.glob("**/seed=0-*")
    if (typed, end) not in NAMED[:2]:  # the others differ in how the command is written alone
        return
    assert script(*words) == 0
    assert "2 jobs: 1 to resume, 1 new\n" in capfd.readouterr().out
    assert sorted(path.name[:6] for path in before.parent.glob("seed=*")) == ["seed=0", "seed=1"]
    assert len(list(tmp_path.glob("**/result.json"))) == 2


@pytest.mark.slow
def test_local_jobs_outlive_a_killed_command_and_are_waited_for(begin, uninterrupted, tmp_path):
    process = begin(*LOCAL, "hydra.launcher.parallel=8", saved=8)
    process.kill()
    process.wait()
    repeated = begin(*LOCAL)
    output, _ = repeated.communicate()
    assert repeated.returncode == 0
    assert "Waiting for jobs that run elsewhere: " in output
    assert read_results(tmp_path / "runs/mine") == uninterrupted


@pytest.mark.slow
def test_a_failed_local_job_is_reported_with_its_reason_and_logs_its_traceback(
    begin, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "own.py").write_text(
        "import lab.checkpoint, models\n"
        "lab.checkpoint.EPOCH_COLUMNS = ()\n"  # a bug of lab/, which alone shows tracebacks
        "class Own(models.MLP): pass\n"
    )
    small = ("-m", "name=mine", "debug=smoke", "hydra/launcher=local", "model._target_=own.Own")
    output, _ = begin(*small, "model.hidden_sizes=[0],[8]").communicate()
    (refused,) = tmp_path.glob("runs/mine/*_0_*")
    (broken,) = tmp_path.glob("runs/mine/*_8_*")
    assert f"{refused.name} failed: model (own.Own): hidden_sizes=[0]: " in output
    bug = json.loads((broken / "result.json").read_text())["reason"]
    assert f"{broken.name} failed: {bug}" in output
    assert "Traceback" not in output and "Traceback" not in (refused / "script.log").read_text()
    assert "Traceback" in (log := (broken / "script.log").read_text()) and bug in log


@pytest.mark.slow
def test_fail_fast_starts_no_more_local_jobs(begin, tmp_path):
    small = ("-m", "name=mine", "debug=smoke", "hydra/launcher=local", "fail_fast=true")
    sizes = "model.hidden_sizes=[0],[8],[9]"
    assert begin(*small, "hydra.launcher.parallel=1", sizes).wait() == 1
    assert [run["status"] for run in jobs(tmp_path).values()] == ["failed"]


def test_the_summary_averages_over_seeds(script, call, tmp_path, capfd):
    assert script("-m", "name=mine", "debug=smoke", "model=linear,mlp", "seed=0,1") == 0
    table = (tmp_path / "runs/mine/results.md").read_text()
    capfd.readouterr()
    assert call("results.py", "runs/mine") == 0
    written = "\nWritten to runs/mine: results.csv, results.md, results.html, results.png\n"
    assert capfd.readouterr().out == table + written
    lines = table.splitlines()
    assert lines[0].split()[1] == "model" and len(lines) == 4
    assert "±" in lines[2] and table.count("best") == 1
    with (tmp_path / "runs/mine/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["model"], row["seed"]) for row in rows} == {
        ("linear", "0"), ("linear", "1"), ("mlp", "0"), ("mlp", "1"),
    }  # fmt: skip
    assert (tmp_path / "runs/mine/results.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "runs/mine/results.html").read_text()
    data = json.loads(re.search('type="application/json" id="data">(.*?)</script>', page)[1])
    for row, (epochs, curves) in zip(data["runs"], data["curves"], strict=True):
        run = jobs(tmp_path)[row[7]]
        assert row[3:5] == [run["val_accuracy"], run["test_accuracy"]]
        assert epochs == 1 and curves[0] == [round(run["val_accuracy"], 4)]
    assert not live.is_swept(tmp_path / "runs/mine") and live.expected(tmp_path / "runs/mine") == 4


@pytest.mark.slow
def test_the_practical_sweep_covers_both_datasets(script, tmp_path):
    assert script("-m", "sweep=practical", "debug=smoke", "name=mine", "model=linear") == 0
    assert {(run["dataset"], run["optimizer"]) for run in jobs(tmp_path).values()} == {
        ("mnist", "adamw"), ("fashion", "adamw"),
    }  # fmt: skip


@pytest.mark.parametrize("state", ["clean", "changed", "untracked", "hidden", "none"])
def test_clean_git_refuses_uncommitted_changes(script, tmp_path, monkeypatch, capfd, state):
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "file").write_text("1")
    monkeypatch.setattr(provenance, "PROJECT", repository)
    if state != "none":
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "1"]):
            subprocess.run(["git", *command], cwd=repository, check=True)
    if state == "changed":
        (repository / "file").write_text("2")
    if state in ("untracked", "hidden"):
        (repository / "other").write_text("2")
    if state == "hidden":
        provenance.git("config", "status.showUntrackedFiles", "no")
    code = script("hydra/callbacks=clean_git", "debug=smoke", "model=linear")
    assert (code == 0) == (state == "clean"), capfd.readouterr()
    assert bool(list(tmp_path.glob("runs/**/result.json"))) == (state == "clean")


def test_a_key_that_was_added_to_the_schema_leaves_the_names_of_older_jobs(script, tmp_path):
    assert script(*GRID, "seed=0") == 0
    (folder,) = tmp_path.glob("runs/mine/*-*")
    cfg = OmegaConf.to_container(composed("debug=smoke", "model=linear", "seed=0"), resolve=True)
    older = {key: value for key, value in cfg.items() if key not in schema.NOT_THE_EXPERIMENT}
    for key in schema.ADDED.keys() - {"optimizer.lr"}:
        group, _, name = key.rpartition(".")
        del (older[group] if group else older)[name]
    digest = hashlib.sha256(json.dumps(older, sort_keys=True).encode()).hexdigest()[:8]
    assert folder.name.endswith(digest)


def test_a_queue_that_cannot_be_asked_is_refused(tmp_path, monkeypatch):
    """Before anything is submitted: a list of queued jobs may come with a stranger's folder."""
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    squeue.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refusal, match="which jobs are queued: no controller"):
        slurm_launcher.queued_jobs(patient=False)
    squeue.unlink()
    with pytest.raises(Refusal, match="finds no squeue"):
        slurm_launcher.queued_jobs()
