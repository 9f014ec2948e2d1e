"""Runs in several processes: what they learn, how they are resumed, and how they end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import PROJECT
from processes import Processes
from test_resume import assert_same_result, rows

pytestmark = [
    pytest.mark.xdist_group("processes"),  # all in the worker that has warmed up
    pytest.mark.skipif(sys.platform != "linux", reason="needs os.fork"),
]
slow = pytest.mark.slow
SMALL = ("dataset=digits", "model=mlp", "model.hidden_sizes=[32]", "limit=331", "precision=fp32")
PLAIN = (*SMALL, "model.dropout=0", "epochs=3", "dataset.repeats=1")
# Long enough to be stopped, with a checkpoint soon.
LONG = (*SMALL, "epochs=3", "dataset.repeats=6", "batch_size=10", "skip_easy=0.3")
LONG += ("checkpoint.every=0.2", "checkpoint.unit=seconds")


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    started = Processes(folder, *SMALL, "epochs=1", "hydra.run.dir=warm")
    yield started
    started.close()


def train(processes, count: int, name: str, *arguments: str) -> Path:
    codes, outputs = processes(count, *arguments, f"hydra.run.dir={name}")
    assert codes == [0] * count, outputs
    assert "finished: " in outputs[0] and not any(outputs[1:]), outputs
    return processes.folder / name


def assert_close(run: Path, other: Path, tolerance: float) -> None:
    saved, expected = (torch.load(path / "last.pt") for path in (run, other))
    assert saved.keys() - {"other_generators"} == expected.keys() - {"other_generators"}
    for key in ("model", "best_weights", "average"):
        for name, value in saved.get(key, {}).items():
            torch.testing.assert_close(
                value, expected[key][name], rtol=tolerance, atol=tolerance, msg=name
            )
    losses = saved["image_losses"], expected["image_losses"]
    torch.testing.assert_close(*losses, rtol=100 * tolerance, atol=100 * tolerance)
    for row, wanted in zip(rows(run), rows(other), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(wanted["train_loss"]), rel=tolerance)
        assert float(row["val_loss"]) == pytest.approx(float(wanted["val_loss"]), rel=tolerance)


WHAT = {
    "all that depends on the batch": (
        *("augmentation=[crop_flip,cutout,mixup]", "augmentation.cutmix=1", "skip_easy=0.5"),
        *("class_weights=balanced", "ema=0.9", "batch_size=33", "grad_clip=1", "val_size=17"),
    ),
    "one validation image": ("val_size=1", "optimizer=sgd", "optimizer.lr=0.01", "batch_size=9"),
}


@pytest.mark.parametrize("what", [next(iter(WHAT)), pytest.param([*WHAT][1], marks=slow)])
@pytest.mark.parametrize("count", [2, pytest.param(3, marks=slow)])
def test_several_processes_train_as_one_does_up_to_rounding(processes, what, count):
    name = f"{count}{len(what)}"
    run = train(processes, count, name, *PLAIN, *WHAT[what])
    alone = train(processes, 1, f"{name}alone", *PLAIN, *WHAT[what])
    assert_close(run, alone, 2e-5)
    results = [json.loads((path / "result.json").read_text()) for path in (run, alone)]
    assert [result["processes"] for result in results] == [count, 1]
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}


@slow
@pytest.mark.parametrize("model", ["vit", "linear"])
def test_other_models_train_as_in_one_process(processes, model):
    own = ("dataset=digits", f"model={model}", "limit=256", "precision=fp32", "epochs=2")
    runs = [train(processes, count, f"{model}{count}", *own) for count in (1, 2)]
    assert_close(*runs, 1e-4)


@slow
def test_the_statistics_of_batch_norm_are_those_of_the_first_process(processes):
    own = ("dataset=digits", "model=cnn", "limit=256", "precision=fp32", "epochs=2", "ema=0.9")
    run = train(processes, 2, "cnn", *own)
    assert "batch norm: each process" in (run / "script.log").read_text()
    codes, outputs = processes(1, f"resume={run}", "epochs=3")
    assert codes == [0] and "processes 2 → 1" in outputs[0]


def stop(processes, count: int, name: str, number: int, *ranks: int, words=LONG) -> list[int]:
    """Start a run, send a signal to some of its processes; return their exit codes."""
    running = processes.start(count, *words, f"hydra.run.dir={name}")
    saved, end = processes.folder / name / "last.pt", time.monotonic() + 40
    while not saved.exists() and time.monotonic() < end:
        time.sleep(0.01)
    before = saved.stat().st_mtime_ns if saved.exists() else 0
    while saved.exists() and saved.stat().st_mtime_ns == before and time.monotonic() < end:
        time.sleep(0.01)
    for rank in ranks:
        os.kill(running[rank], number)
    started = time.monotonic()
    codes, outputs = processes.end()
    assert time.monotonic() - started < 30, outputs
    assert saved.exists() and not any(outputs[1:]), outputs
    return codes


@pytest.fixture(scope="module")
def uninterrupted(processes) -> Path:
    return train(processes, 2, "uninterrupted", *LONG)


def test_a_signal_to_one_process_stops_all_after_the_same_step(processes, uninterrupted):
    run = processes.folder / "term"
    assert stop(processes, 2, "term", signal.SIGTERM, 1) == [143, 143]
    log = (run / "script.log").read_text()
    assert log.count("SIGTERM: saved after epoch") == 1 and "Traceback" not in log
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"
    assert processes(2, f"resume={run}")[0] == [0, 0]
    assert_same_result(run, uninterrupted)


@pytest.mark.parametrize(
    "ranks", [(0,), pytest.param((1,), marks=slow), pytest.param((0, 1), marks=slow)]
)
def test_when_a_process_is_killed_the_others_end_and_the_run_resumes(
    processes, uninterrupted, ranks
):
    run = processes.folder / f"killed{ranks}".translate({ord(c): None for c in "(), "})
    codes = stop(processes, 2, run.name, signal.SIGKILL, *ranks)
    assert [codes[rank] for rank in ranks] == [-9] * len(ranks)
    assert all(code for code in codes)
    if 0 not in ranks:
        result = json.loads((run / "result.json").read_text())
        assert result["status"] == "interrupted"
        assert result["reason"].startswith("another process of the run has ended without a word")
    assert processes(2, f"resume={run}")[0] == [0, 0]
    assert_same_result(run, uninterrupted)


@slow
def test_a_run_is_resumed_in_another_number_of_processes(processes):
    words = (*LONG, "model.dropout=0")
    alone = train(processes, 1, "undivided", *words)
    stop(processes, 2, "divided", signal.SIGINT, 0, 1, words=words)
    run = processes.folder / "divided"
    codes, outputs = processes(1, f"resume={run}")
    assert codes == [0] and "processes 2 → 1" in outputs[0], outputs
    assert_close(run, alone, 1e-3)
    stop(processes, 1, "joined", signal.SIGTERM, 0, words=words)
    joined = processes.folder / "joined"
    assert processes(3, f"resume={joined}")[0] == [0, 0, 0]
    assert_close(joined, alone, 1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["epocs=3"], "epocs is not a key"),
        (["batch_size=1"], "batch_size=1 cannot be shared among 2 processes"),
        (["-m", "seed=0,1"], "hydra/launcher=local or slurm"),
        pytest.param(["optimizer.lr=1e30"], "The loss became nan in epoch 1, step ", marks=slow),
    ],
)
def test_what_is_refused_is_said_once(processes, words, said):
    codes, outputs = processes(2, *words, *SMALL)
    assert codes == [1, 1] and outputs[1] == ""
    assert outputs[0].count(said) == 1 and "Traceback" not in outputs[0], outputs


@slow
def test_a_failure_of_another_process_is_reported_by_the_first(processes):
    """The module is somebody's own, and fails in process 1 alone."""
    (processes.folder / "own.py").write_text(
        "import os, models\n"
        "class Own(models.Linear):\n"
        "    def forward(self, images):\n"
        "        if os.environ.get('RANK') == '1' and self.training and images.any():\n"
        "            raise ValueError('it is too dark here')\n"
        "        return super().forward(images)\n"
    )
    words = ("dataset=digits", "model=linear", "model._target_=own.Own")
    codes, outputs = processes(2, *words, "hydra.run.dir=dark")
    assert codes == [1, 1] and outputs[1] == ""
    assert "process 1 (of 0 to 1) failed: it is too dark here" in outputs[0], outputs


@slow
def test_help_is_printed_once(processes):
    codes, outputs = processes(2, "--help")
    assert codes == [0, 0] and "Groups" in outputs[0] and outputs[1] == ""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines():
    """The addresses of two network namespaces that are connected, by their names."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and ip: apt-get install iproute2")
    found = {f"hpp{os.getpid()}{letter}": f"10.213.7.{n}" for n, letter in ((1, "a"), (2, "b"))}
    links = [f"v{name}" for name in found]
    try:
        try:
            for name in found:
                ip("netns", "add", name)
            ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        for (name, address), link in zip(found.items(), links, strict=True):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield found
    finally:
        for name in found:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@slow
def test_two_machines_train_together_by_torchrun(machines, processes, tmp_path):
    """They share no folder: the run folder is on the machine of the first process."""
    first = next(iter(machines.values()))
    started = []
    for name, address in machines.items():
        (tmp_path / name).mkdir()
        torchrun = [
            *("ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME=v{name}", sys.executable),
            *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-id=1"),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint={first}:29511", f"--local-addr={address}"),
            f"--rdzv-conf=is_host={int(address == first)}",  # both have the same host name here
        ]
        command = [*torchrun, str(PROJECT / "script.py"), *PLAIN, "hydra.run.dir=run"]
        with (tmp_path / f"{name}.txt").open("w") as output:
            process = subprocess.Popen(
                command, cwd=tmp_path / name, stdout=output, stderr=subprocess.STDOUT
            )
        started.append(process)
    try:
        codes = [process.wait(timeout=150) for process in started]
    finally:
        for process in started:
            process.kill()
    outputs = {name: (tmp_path / f"{name}.txt").read_text() for name in machines}
    assert codes == [0, 0], outputs
    (run,) = tmp_path.glob("*/run")
    assert_close(run, train(processes, 1, "one_machine", *PLAIN), 2e-5)


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_torchrun_itself_is_stopped(tmp_path, number):
    """As by Ctrl-C, which all of the terminal's processes get; torchrun passes it on once more."""
    words = (*LONG, "epochs=200", "hydra.run.dir=run")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*launcher, str(PROJECT / "script.py"), *words],
            cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + 100
        while not (tmp_path / "run/last.pt").exists() and time.monotonic() < end:
            time.sleep(0.05)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(timeout=40)
    finally:
        process.kill()
    text = (tmp_path / "output.txt").read_text()
    assert text.count(f"{number.name}: saved after epoch") == 1, text
    assert text.count("Resume with: torchrun --nproc-per-node=2 script.py resume=") == 1, text
    assert json.loads((tmp_path / "run/result.json").read_text())["status"] == "interrupted"
