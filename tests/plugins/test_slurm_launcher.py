"""Sweeps on a real Slurm cluster: `pytest -m slurm` as root, where slurm-wlm is installed."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster, reason_to_skip
from conftest import PROJECT
from test_resume import assert_same_result

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]  # one cluster, one worker

SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.partition=main", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
)  # fmt: skip
# Tiny steps, for long enough to be interrupted.
LONG = (
    "model=linear", "batch_size=1", "compile=false", "checkpoint.every=0.5",
    "checkpoint.unit=seconds",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := reason_to_skip():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project, committed to a new repository."""
    folder = tmp_path / "project"
    left_out = shutil.ignore_patterns(".git", ".*_cache", "__pycache__", "runs", "data")
    shutil.copytree(PROJECT, folder, ignore=left_out)
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def sweep(cluster, project, data_dir):
    """Start `python script.py --multirun … hydra/launcher=slurm` and, by default, wait for it."""

    def begin(*arguments: str, wait: bool = True):
        process = subprocess.Popen(
            [sys.executable, "script.py", "-m", "name=mine", *arguments, *SLURM],
            cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=cluster.environment | {"DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return (process.communicate()[0], process.returncode) if wait else process

    return begin


@pytest.fixture
def uninterrupted(tmp_path, project, data_dir):
    """The folder of an uninterrupted run, on one thread as on Slurm."""

    def run(*arguments: str) -> Path:
        folder = tmp_path / "undisturbed"
        subprocess.run(
            [sys.executable, "script.py", *arguments, f"hydra.run.dir={folder}"],
            cwd=project, check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return folder

    return run


def jobs(project: Path) -> dict[str, dict]:
    """Return the `result.json` of every job, by the overrides that distinguish it."""
    paths = (project / "runs/mine").glob("*/result.json")
    return {path.parent.name.rpartition("-")[0]: json.loads(path.read_text()) for path in paths}


def find_job_processes(project: Path) -> list[int]:
    commands = {path: path.read_text() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [
        int(path.parent.name)
        for path, command in commands.items()
        if command.startswith(sys.executable) and f"{project}/runs/mine/.submitit" in command
    ]


def test_eight_jobs_finish_and_are_skipped_when_repeated(sweep, project):
    output, code = sweep("model=linear", "debug=smoke", "seed=range(8)")
    assert code == 0, output
    assert output.count(" on validation\n") == 8
    done = jobs(project)
    assert len(done) == 8 and all(job["status"] == "finished" for job in done.values())
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project, text=True).strip()
    assert {job["commit"] for job in done.values()} == {head}
    assert not any(job["dirty"] for job in done.values())
    assert {job["threads"] for job in done.values()} == {1}
    assert done["seed=3"]["command"][:3] == ["script.py", "-m", "name=mine"]
    assert "| 8    |" in output
    output, code = sweep("model=linear", "debug=smoke", "seed=range(8)")
    assert code == 0 and "8 jobs: 8 finished" in output


def test_a_failed_job_does_not_affect_the_others(sweep, project):
    output, code = sweep("debug=smoke", "model.hidden_sizes=[0],[8]")
    assert code == 1
    assert " failed: model (models.MLP): hidden_sizes=[0]" in output
    assert sorted(job["status"] for job in jobs(project).values()) == ["failed", "finished"]


def test_a_killed_job_resumes_and_the_others_finish(sweep, project, uninterrupted, cluster):
    command = (*LONG, "epochs=60")
    process = sweep(*command, "seed=0,1", wait=False)
    cluster.wait_for(lambda: len(list(project.glob("runs/mine/*/last.pt"))) == 2, 90)
    folder = next(project.glob("runs/mine/seed=0-*"))
    numbers = {pid: Path(f"/proc/{pid}/environ").read_text() for pid in find_job_processes(project)}
    (victim,) = [pid for pid, text in numbers.items() if "SLURM_ARRAY_TASK_ID=0" in text]
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert f"{folder.name} failed: the job ended without an answer" in output
    assert output.count(" on validation\n") == 1
    output, code = sweep(*command, "seed=0,1")
    assert code == 0 and "2 jobs: 1 finished, 1 to resume\n" in output
    assert_same_result(folder, uninterrupted(*command))


def test_a_job_that_times_out_is_requeued_and_resumed_exactly(sweep, project, uninterrupted):
    # Slurm checks time limits every 30 seconds and counts them in minutes.
    command = (*LONG, "epochs=300")
    limits = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=30")
    output, code = sweep(*command, *limits)
    assert code == 0, output
    (folder,) = project.glob("runs/mine/job-*")
    assert "SIGUSR2: saved after" in (folder / "script.log").read_text()
    assert_same_result(folder, uninterrupted(*command))


def test_a_preempted_job_is_requeued_and_resumed_exactly(sweep, project, uninterrupted, cluster):
    command = (*LONG, "epochs=60")
    process = sweep(*command, wait=False)
    cluster.wait_for(lambda: list(project.glob("runs/mine/*/last.pt")), 90)
    cluster.call("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    (folder,) = project.glob("runs/mine/job-*")
    assert "resumed after epoch" in (folder / "script.log").read_text()
    assert_same_result(folder, uninterrupted(*command))


def test_an_edit_after_submission_does_not_affect_the_job(sweep, project, cluster):
    (project / "models.py").write_text((project / "models.py").read_text() + "\n# mine\n")
    cluster.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    process = sweep("model=linear", "debug=smoke", wait=False)
    cluster.wait_for(lambda: cluster.queue(), 60)
    (project / "models.py").write_text("raise SystemExit('the code of today')\n")
    (project / "config/model/linear.yaml").write_text("no: model\n")
    cluster.call("scontrol", "update", "PartitionName=main", "State=UP")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    (job,) = jobs(project).values()
    assert job["status"] == "finished" and job["dirty"]
    (folder,) = project.glob("runs/mine/job-*")
    assert "+# mine" in (folder / "changes.diff").read_text()


def test_a_killed_sweep_command_can_be_repeated(sweep, project, cluster):
    command = ("model=linear", "debug=smoke", "seed=range(4)")
    cluster.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    process = sweep(*command, wait=False)
    cluster.wait_for(lambda: len(cluster.queue()) == 4, 60)
    process.kill()
    process.wait()
    cluster.call("scontrol", "update", "PartitionName=main", "State=UP")
    cluster.wait_for(lambda: len(cluster.queue()) < 4, 60)
    output, code = sweep(*command)
    assert code == 0, output
    assert " queued" in output and " new" not in output
    assert len(jobs(project)) == 4


def test_a_search_runs_two_trials_in_parallel(sweep, project):
    pytest.importorskip("optuna")
    space = ("model=linear", "limit=128", "epochs=4", "optimizer.lr=tag(log,interval(1e-6,1e-1))")
    chosen = ("hydra/sweeper=optuna", "hydra/sweeper/pruner=median", "hydra.sweeper.parallel=2")
    output, code = sweep(*space, *chosen, "hydra.sweeper.n_trials=4")
    assert code == 0, output
    paths = (project / "runs/mine").glob("trial=*/result.json")
    done = [json.loads(path.read_text()) for path in paths]
    assert len(done) == 4 and {job["status"] for job in done} <= {"finished", "pruned"}
    assert (project / "runs/mine/optimization_results.yaml").exists()


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_that_a_stranger_left_in_a_sweep_folder_is_unpickled(
    sweep, project, cluster, tmp_path
):
    """Pickles under the numbers that the next jobs get, and a list of jobs that are not the
    sweep's, but the user's."""
    cluster.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    other = cluster.call("sbatch", "-p", "main", "-o", "/dev/null", "--wrap", "sleep 60")
    number = int(other.split()[-1])
    folder = project / "runs/mine/.submitit"
    bomb = pickle.dumps(("success", Bomb(tmp_path / "went-off")))
    for name in (".", *(str(number + i) for i in range(1, 4)), "%j", "old"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for job in (f"{number + i}_{j}" for i in range(4) for j in range(4)):
            for kind in ("submitted", "0_result", "result"):
                (folder / name / f"{job}_{kind}.pkl").write_bytes(bomb)
        (folder / name / "jobs.json").write_text(json.dumps({str(number): "seed=0-1"}))
        (folder / name / f"{number}_answer.json").write_text('{"returned": 1.0}')
    (folder / f"{number}.json").write_text(json.dumps({str(number): "seed=0-1"}))
    cluster.call("scontrol", "update", "PartitionName=main", "State=UP")
    output, code = sweep("model=linear", "debug=smoke", "seed=0,1", "fail_fast=true")
    assert code == 0 and "2 jobs: 2 new\n" in output, output
    assert not (tmp_path / "went-off").exists()
    assert str(number) in cluster.call("squeue", "--noheader", "--format=%i")
    cluster.call("scancel", str(number))
    (made,) = {path.parent for path in folder.glob("20*/*_answer.json")}
    assert made.stat().st_mode & 0o777 == 0o700
    assert len(list(made.glob("*_answer.json"))) == 2


def test_two_tasks_train_one_run_together(sweep, project, uninterrupted, cluster):
    """As one process does, up to rounding; when it is preempted, it resumes."""
    command = (*LONG, "batch_size=2", "epochs=30", "precision=fp32")
    tasks = ("hydra.launcher.nodes=1", "hydra.launcher.tasks_per_node=2")
    process = sweep(*command, *tasks, wait=False)
    cluster.wait_for(lambda: list(project.glob("runs/mine/*/last.pt")), 90)
    cluster.call("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    (folder,) = project.glob("runs/mine/job-*")
    log = (folder / "script.log").read_text()
    assert log.count("2 processes train together") == log.count("resumed after epoch") + 1 == 2
    result = json.loads((folder / "result.json").read_text())
    alone = json.loads((uninterrupted(*command) / "result.json").read_text())
    assert result["processes"] == 2 and result["status"] == "finished"
    assert result["val_loss"] == pytest.approx(alone["val_loss"], rel=0.02)


def test_a_command_need_not_wait_for_its_jobs(sweep, project, cluster):
    command = ("model=linear", "debug=smoke", "seed=0,1")
    apart = ("hydra.launcher.wait=false", "+hydra.launcher.additional_parameters.nice=1")
    cluster.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    output, code = sweep(*command, *apart)
    assert code == 0 and "python results.py runs/mine" in output and "squeue --me" in output
    assert len(cluster.queue()) == 2
    output, code = sweep(*command, *apart)
    assert code == 0 and "2 queued" in output and len(cluster.queue()) == 2, output
    cluster.call("scontrol", "update", "PartitionName=main", "State=UP")
    output, code = sweep(*command)  # without wait=false, it waits
    assert code == 0 and "| 2    |" in output, output
