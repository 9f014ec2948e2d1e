"""The real trackers, on this machine alone: a run that is killed and resumed, a sweep, a server
that dies. `pytest -m trackers` runs these, after `pip install -r env/requirements-trackers.txt`."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import PROJECT, run_folders, start

pytestmark = [pytest.mark.trackers, pytest.mark.xdist_group("trackers")]

RUN = ("dataset=digits", "model=linear", "limit=32", "batch_size=32", "scheduler=constant")
NAMES = ("tensorboard", "mlflow", "wandb", "trackio")
STEPS = [1, 2, 3, 4]
PATIENCE = 240  # seconds: a busy machine takes a minute to import mlflow's server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answer(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read()


@contextmanager
def served(folder: Path, module: str, *words: str, port: int, path: str = "/"):
    """`python -m MODULE WORDS` in a process group of its own, which ends with the context."""
    with (folder / f"{module}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                answer(f"http://127.0.0.1:{port}{path}")
                break
            assert process.poll() is None, (folder / f"{module}.log").read_text()
            assert time.monotonic() < deadline, f"{module} does not answer"
            time.sleep(0.5)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the tests train; what trackers write elsewhere is below it, too."""
    found = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT / "tests"))
        patch.setenv("TRACKIO_DIR", str(found / "trackio"))
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
            patch.delenv(name, raising=False)
        yield found


@pytest.fixture(scope="module")
def mlflow_server(folder):
    """The server's address, and its process."""
    port = free_port()
    words = ("server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1")
    words += ("--host", "127.0.0.1", "--port", str(port))
    words += ("--artifacts-destination", str(folder / "artifacts"))
    with served(folder, "mlflow", *words, port=port, path="/health") as process:
        yield f"http://127.0.0.1:{port}", process


@pytest.fixture(scope="module")
def words(mlflow_server) -> tuple[str, ...]:
    """All trackers at once."""
    return f"logger=[{','.join(NAMES)}]", f"logger.mlflow.tracking_uri={mlflow_server[0]}"


def train(folder: Path, *words: str) -> tuple[int, str]:
    process = start(folder, *words, "data_dir=data")
    output = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, output


@pytest.fixture(scope="module")
def run(folder, words) -> Path:
    """A run that was killed after epoch 3 was reported, and before it was saved; then resumed."""
    (folder / "data").mkdir()
    kill = ("+logger.kill._target_=fake_trackers.Killing", "+logger.kill.epoch=3")
    code, output = train(
        folder, *RUN, "epochs=4", "checkpoint.every=2", "hydra.run.dir=run", *words, *kill
    )
    assert code == -signal.SIGKILL, output
    assert json.loads((folder / "run/result.json").read_text())["status"] == "running"
    code, output = train(folder, "resume=run", *words)
    assert code == 0 and "resumed after epoch 2" in output, output
    assert "failed" not in output, output
    return folder / "run"


@pytest.fixture(scope="module")
def result(run) -> dict:
    return json.loads((run / "result.json").read_text())


def events_of(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def test_tensorboard_reads_each_step_once(run, result):
    events = events_of(run)
    for name in ("train/loss", "val/loss", "val/accuracy", "lr"):
        assert [event.step for event in events.Scalars(name)] == STEPS
    (test,) = events.Scalars("test/accuracy")
    assert test.value == pytest.approx(result["test_accuracy"]) and test.step == 4
    assert len(list(run.glob("events.out.tfevents.*"))) == 2  # one per part
    written = b"".join(path.read_bytes() for path in run.glob("events.out.tfevents.*"))
    assert written.count(b"_hparams_/session_start_info") == 1
    assert written.count(b"_hparams_/session_end_info") == 1
    assert b"optimizer.lr" in written


def test_a_tensorboard_server_shows_the_run(folder, run):
    port = free_port()
    words = ("--logdir", str(folder / "run"), "--host", "127.0.0.1", "--port", str(port))
    with served(folder, "tensorboard.main", *words, port=port):
        here = f"http://127.0.0.1:{port}/data/plugin/scalars"
        deadline = time.monotonic() + PATIENCE
        while not (tags := json.loads(answer(f"{here}/tags"))):  # it reads in the background
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert tags.keys() == {"."} and "val/accuracy" in tags["."]
        points = json.loads(answer(f"{here}/scalars?run=.&tag=val%2Faccuracy"))
    assert [step for _, step, _ in points] == STEPS


def mlflow_runs(uri: str, **tags: str) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("practical").experiment_id
    query = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment], query)


def test_mlflow_has_one_run_and_each_step_once(run, result, mlflow_server):
    from mlflow import MlflowClient

    uri, _ = mlflow_server
    (found,) = mlflow_runs(uri, run_folder_id=result["tracker_id"])
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params["optimizer.lr"] and found.data.params["model._target_"]
    assert found.data.metrics["test/accuracy"] == result["test_accuracy"]
    client = MlflowClient(tracking_uri=uri)
    for name in ("train/loss", "val/accuracy"):
        history = client.get_metric_history(found.info.run_id, name)
        assert [metric.step for metric in history] == STEPS


def test_the_page_of_mlflow_shows_the_run(run, result, mlflow_server, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("needs chromium and chromedriver")
    (found,) = mlflow_runs(mlflow_server[0], run_folder_id=result["tracker_id"])
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update --disable-sync"
    for flag in (*flags.split(), f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    try:
        place = f"#/experiments/{found.info.experiment_id}/runs/{found.info.run_id}"
        browser.get(f"{mlflow_server[0]}/{place}")
        deadline = time.monotonic() + PATIENCE
        while "val/accuracy" not in browser.page_source:
            assert time.monotonic() < deadline, browser.page_source[:2000]
            time.sleep(1)
        assert "optimizer.lr" in browser.page_source
    finally:
        browser.quit()


def wandb_records(path: Path) -> list:
    from wandb.proto.wandb_internal_pb2 import Record

    from lab.tracker_wandb import _records

    return [Record.FromString(content) for content in _records(path.read_bytes())]


def test_wandb_has_one_run_and_each_step_once(run, result):
    id = result["tracker_id"]
    paths = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(paths) == 2 and {path.stem for path in paths} == {f"run-{id}"}
    parts = [wandb_records(path) for path in paths]
    records = [record for part in parts for record in part]
    found = [record.history for record in records if record.HasField("history")]
    assert [history.step.num for history in found] == STEPS
    names = {item.nested_key[0] if item.nested_key else item.key for item in found[0].item}
    assert {"train/loss", "val/accuracy", "lr"} <= names
    runs = [record.run for record in records if record.HasField("run")]
    assert {(each.run_id, each.project, each.display_name) for each in runs} == {
        (id, "practical", "run")
    }
    config = {update.key: update.value_json for update in runs[0].config.update}
    assert "optimizer.lr" in config and "model._target_" in config
    ends = [record.exit.exit_code for record in records if record.HasField("exit")]
    assert ends[-1] == 0
    summary = {
        update.key or update.nested_key[0]: update.value_json
        for record in records if record.HasField("summary") for update in record.summary.update
    }  # fmt: skip
    assert json.loads(summary["test/accuracy"]) == result["test_accuracy"]
    assert json.loads(summary["status"]) == "finished"


def trackio_logs(name: str) -> list[dict]:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (found,) = [run for run in trackio.Api().runs("practical") if run.name == name]
    return SQLiteStorage.get_logs("practical", found.name)


def test_trackio_has_one_run_and_each_step_once(run, result):
    logs = trackio_logs(f"run {result['tracker_id']}")
    assert [row["step"] for row in logs if "val/accuracy" in row] == STEPS
    assert logs[-1]["status"] == "finished"
    assert logs[-1]["test/accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_each_job_of_a_sweep_has_a_run_of_its_own(folder, words, mlflow_server, launcher):
    name = f"lr_{launcher}"
    code, output = train(
        folder, "-m", f"name={name}", f"hydra/launcher={launcher}", *RUN, "epochs=1", "seed=0,1",
        *words,
    )  # fmt: skip
    assert code == 0 and "logger=" not in output, output
    jobs = run_folders(folder / "runs" / name) or [
        path.parent for path in (folder / "runs" / name).glob("*/result.json")
    ]
    assert len(jobs) == 2
    found = mlflow_runs(mlflow_server[0], sweep=name)
    assert {run.info.status for run in found} == {"FINISHED"} and len(found) == 2
    assert {run.info.run_name for run in found} == {job.name for job in jobs}
    for job in jobs:
        id = json.loads((job / "result.json").read_text())["tracker_id"]
        assert [event.step for event in events_of(job).Scalars("val/accuracy")] == [1]
        (path,) = job.glob("wandb/offline-run-*/run-*.wandb")
        records = wandb_records(path)
        assert [r.run.run_group for r in records if r.HasField("run")] == [name]
        assert [r.exit.exit_code for r in records if r.HasField("exit")] == [0]
        assert [row["step"] for row in trackio_logs(f"{job.name} {id}")] == [1, 1]


def test_jobs_that_start_together_share_a_new_database(folder):
    uri = f"sqlite:///{folder}/new.db"
    code, output = train(
        folder, "-m", "name=new", "hydra/launcher=local", *RUN, "epochs=1", "seed=0,1",
        "logger=mlflow", f"logger.mlflow.tracking_uri={uri}",
    )  # fmt: skip
    logs = "".join(path.read_text() for path in (folder / "runs/new").glob("*/script.log"))
    assert code == 0 and "logger=" not in logs, output + logs
    assert [run.info.status for run in mlflow_runs(uri, sweep="new")] == ["FINISHED"] * 2


def test_how_a_run_ended(folder, words, mlflow_server):
    kill = ("+logger.kill._target_=fake_trackers.Killing", "+logger.kill.epoch=2")
    code, output = train(
        folder, *RUN, "epochs=3", "hydra.run.dir=stopped", *words, *kill, "+logger.kill.how=SIGTERM"
    )
    assert code == 128 + signal.SIGTERM, output
    broken = ("optimizer=sgd", "optimizer.lr=1e30", "hydra.run.dir=broken")
    assert train(folder, *RUN, *broken, *words)[0] == 1
    for name, status, code in (("stopped", "interrupted", 130), ("broken", "failed", 1)):
        id = json.loads((folder / name / "result.json").read_text())["tracker_id"]
        (found,) = mlflow_runs(mlflow_server[0], run_folder_id=id)
        assert found.data.tags["status"] == status
        assert found.info.status == {"interrupted": "KILLED", "failed": "FAILED"}[status]
        (path,) = (folder / name).glob("wandb/offline-run-*/run-*.wandb")
        ends = [r.exit.exit_code for r in wandb_records(path) if r.HasField("exit")]
        assert ends == [code]


def test_wandb_without_a_key_is_one_warning(folder, tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "online", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    code, output = train(folder, *RUN, "epochs=1", "hydra.run.dir=no_key", "logger=wandb")
    assert code == 0 and output.count("logger=wandb failed") == 1, output
    assert "wandb login" in output and "logger.wandb.mode=offline" in output


def test_a_server_that_dies_is_one_warning(folder, mlflow_server):
    """The last test: it kills the server."""
    uri, process = mlflow_server
    kill = ("+logger.kill._target_=fake_trackers.Killing", f"+logger.kill.group={process.pid}")
    started = time.monotonic()
    code, output = train(
        folder, *RUN, "epochs=4", "hydra.run.dir=server", "logger=mlflow",
        f"logger.mlflow.tracking_uri={uri}", *kill, "+logger.kill.epoch=2",
    )  # fmt: skip
    assert code == 0, output
    assert len(re.findall("logger=mlflow failed", output)) == 1
    assert not re.search("Retrying|Traceback", output), output
    assert time.monotonic() - started < PATIENCE
    result = json.loads((folder / "server/result.json").read_text())
    assert result["status"] == "finished" and result["epochs"] == 4
