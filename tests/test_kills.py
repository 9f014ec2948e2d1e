"""Commands that are killed, or find the disk full, at any operation on their files.

Given again, they end as if nothing had happened.
"""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from interposed import CRASHED, FULL, KILL, KILL_HALFWAY, Commands
from test_resume import assert_same_result, contents

pytestmark = [
    pytest.mark.xdist_group("kills"),  # all in the worker that has warmed up
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is of Linux"),
    pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler: install gcc"),
]
slow = pytest.mark.slow
RUN = ("model=mlp", "model.hidden_sizes=[16]", "dataset=digits", "limit=256", "batch_size=64")
RUN += ("dataset.repeats=1",)
TWO = (*RUN, "epochs=2")
SWEEP = ("script.py", "-m", *TWO, "seed=0,1", "hydra.sweep.dir=here")
SEARCH = (
    *("script.py", "-m", *RUN, "epochs=1", "hydra/sweeper=optuna", "hydra.sweep.dir=here"),
    *("optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)"),
    "hydra.sweeper.n_trials=3",
)
Point = tuple[int, int]  # the number of an operation, and what happens there


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    started = Commands(folder, "script.py", *TWO, "hydra.run.dir=warm")
    yield started
    started.close()


def kills(operations: list[str]) -> list[Point]:
    """Before every operation, within every write, and after the last one."""
    within = [(n, KILL_HALFWAY) for n, op in enumerate(operations, 1) if op.startswith("write")]
    return sorted([(n, KILL) for n in range(1, len(operations) + 1)] + within)


def fillings(operations: list[str]) -> list[Point]:
    """Every operation that takes space."""
    taking = ("open", "write", "fsync", "mkdir")
    return [(n, FULL) for n, op in enumerate(operations, 1) if op.startswith(taking)]


def spread(points: list[Point], number: int | None) -> list[Point]:
    """So many of the points, from the first to the last; all of them for None."""
    if number is None or number >= len(points):
        return points
    return [points[i * (len(points) - 1) // (number - 1)] for i in range(number)]


def interrupt(commands, here: Path, point: Point, *command: str) -> str:
    """Run a command that is interrupted at `point`; return its output."""
    code, output, operations = commands(here, *command, at=point[0], what=point[1])
    if point[1] != FULL:
        assert code == -9, (point, output, operations)
        return output
    assert code != CRASHED and "Traceback" not in output, (point, output)
    if code:
        assert "No space left on device" in output, (point, output)
    else:  # only messages were lost
        assert "script.log" in operations[point[0] - 1], (point, output)
    return output


def finish(commands, run: Path, *command: str) -> None:
    """Resume a run, or start it again if it has not recorded its config."""
    known = (run / "config.yaml").exists() and (run / "result.json").exists()
    words = ("script.py", f"resume={run}") if known else command
    code, output, _ = commands(run, *words)
    assert code == 0, (words, output, contents(run).keys())


def check_run(run: Path, reference: Path, is_job: bool = False) -> None:
    assert_same_result(run, reference)
    left = {path.name for path in run.rglob("*") if "partial" in path.name or path.name == ".lock"}
    # The lock of a job that was killed when it had recorded its end: it is not entered again.
    assert left <= ({".lock"} if is_job else set())


@pytest.fixture
def reference(commands, tmp_path) -> tuple[Path, list[str]]:
    """A run of two epochs, and its operations."""
    folder = tmp_path / "reference"
    code, output, operations = commands(folder, "script.py", *TWO, "hydra.run.dir=reference")
    assert code == 0, output
    return folder, operations


@pytest.mark.parametrize("number", [20, pytest.param(None, marks=slow)])
@pytest.mark.parametrize("points", [kills, pytest.param(fillings, marks=slow)])
def test_a_run(commands, reference, tmp_path, points: Callable, number):
    uninterrupted, operations = reference
    assert len(operations) > 60
    for point in spread(points(operations), number):
        here = tmp_path / "{}-{}".format(*point)
        command = ("script.py", *TWO, f"hydra.run.dir={here.name}")
        interrupt(commands, here, point, *command)
        finish(commands, here, *command)
        check_run(here, uninterrupted)
        shutil.rmtree(here)


@slow
@pytest.mark.parametrize("points", [kills, fillings])
def test_a_resumed_run(commands, reference, tmp_path, points: Callable):
    uninterrupted, operations = reference
    first, here = tmp_path / "first", tmp_path / "here"
    at = operations.index("rename /last.pt") + 5
    interrupt(commands, first, (at, KILL), "script.py", *TWO, "hydra.run.dir=first")
    shutil.copytree(first, here)
    command = ("script.py", f"resume={here}")
    code, output, operations = commands(here, *command)
    assert code == 0, output
    check_run(here, uninterrupted)
    for point in points(operations):
        shutil.rmtree(here)
        shutil.copytree(first, here)
        interrupt(commands, here, point, *command)
        finish(commands, here, *command)
        check_run(here, uninterrupted)


@pytest.fixture
def disk(tmp_path):
    """A small disk, and a function that sets its size in pages; None is enough for anything."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "small", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")

    def resize(pages: int | None) -> None:
        size = f"size={4096 * pages if pages else '50%'}"
        subprocess.run(["mount", "-o", f"remount,{size}", folder], check=True)

    yield folder, resize
    subprocess.run(["umount", folder], check=True)


@slow
@pytest.mark.parametrize(
    ("name", "stride"), [("run", 1), ("sweep", 4), ("search", 4)], ids=["run", "sweep", "search"]
)
def test_a_small_disk(commands, disk, tmp_path, name, stride):
    """Of every size, from one page to enough; with more space, the command is given again."""
    if name == "search":
        pytest.importorskip("optuna", reason="pip install -r env/requirements-search.txt")
    command = {"run": ("script.py", *TWO, "hydra.run.dir=here"), "sweep": SWEEP, "search": SEARCH}
    (folder, resize), whole = disk, tmp_path / "whole"
    resize(None)
    here = folder / "here"
    assert commands(here, *command[name])[0] == 0
    shutil.copytree(here, whole)
    output, pages = "No space left on device", 1 - stride
    while "No space left on device" in output:
        pages += stride
        shutil.rmtree(here)
        resize(pages)
        code, output, _ = commands(here, *command[name])
        assert code in (0, 1) and "Traceback" not in output, (pages, output)
        assert code == 0 or "No space left on device" in output, (pages, output)
        resize(None)
        assert commands(here, *command[name])[0] == 0, pages
        for path in whole.rglob("last.pt"):
            check_run(here / path.parent.relative_to(whole), path.parent, name != "run")
        for table, timed in (("results.csv", ("seconds",)), ("trials.csv", ())):
            if (whole / table).exists():
                assert rows(here / table, *timed) == rows(whole / table, *timed), pages
    assert pages > 20


@slow
def test_a_compiled_run_whose_images_grow(commands, tmp_path):
    """Resumed, it has not seen the small images, which must not matter to its kernels."""
    words = ("script.py", "model=cnn", "model.widths=[8,8]", "model.depths=[1,1]", "epochs=4")
    words += ("model.kernel_sizes=[3,3]", "dataset=digits", "limit=256", "batch_size=64")
    words += ("shrink.share=0.5", "compile=true", "augmentation=none")
    words += ("checkpoint.unit=seconds", "checkpoint.every=0.001")  # after every step
    whole = tmp_path / "whole"
    code, output, operations = commands(whole, *words, "hydra.run.dir=whole")
    assert code == 0, output
    saves = [n for n, operation in enumerate(operations, 1) if operation == "rename /last.pt"]
    ends = [n for n, operation in enumerate(operations, 1) if operation == "rename /metrics.csv"]
    assert len(ends) == 4 and len(saves) > 20
    grown = [n for n in saves if n > ends[1]]
    # With small images, at the change, some whole ones later, and in the last epoch.
    for number in (saves[2], ends[1], grown[2], ends[2] + 6):
        here = tmp_path / str(number)
        command = (*words, f"hydra.run.dir={here.name}")
        interrupt(commands, here, (number + 1, KILL), *command)
        finish(commands, here, *command)
        check_run(here, whole)


def rows(path: Path, *timed: str) -> list[dict[str, str]]:
    with path.open() as file:
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


def again(commands, before: Path | None, here: Path, point: Point, *command: str) -> str:
    """In a copy of `before`, give a command that is interrupted, and give it again."""
    shutil.rmtree(here, ignore_errors=True)
    if before:
        shutil.copytree(before, here)
    interrupted = interrupt(commands, here, point, *command)
    code, output, _ = commands(here, *command)
    assert code == 0, (point, interrupted, output)
    return output


@slow
@pytest.mark.parametrize("points", [kills, fillings])
def test_a_sweep_that_is_repeated(commands, tmp_path, points: Callable):
    """It finds one job finished and the other one interrupted."""
    here, whole, before = (tmp_path / name for name in ("here", "whole", "before"))
    code, output, operations = commands(here, *SWEEP)
    assert code == 0, output
    here.rename(whole)
    saved = [n for n, operation in enumerate(operations, 1) if operation.endswith("/last.pt")]
    interrupt(commands, here, (saved[2] + 5, KILL), *SWEEP)
    here.rename(before)
    shutil.copytree(before, here)
    code, output, operations = commands(here, *SWEEP)
    assert code == 0 and "1 finished, 1 to resume" in output, output
    for point in points(operations):
        again(commands, before, here, point, *SWEEP)
        for job in whole.glob("seed=*"):
            check_run(here / job.name, job, is_job=True)
        assert rows(here / "results.csv", "seconds") == rows(whole / "results.csv", "seconds")


@slow
@pytest.mark.parametrize("backend", ["optuna", "ax"])
@pytest.mark.parametrize("points", [kills, fillings])
def test_a_search(commands, tmp_path, points: Callable, backend):
    pytest.importorskip(backend, reason="pip install -r env/requirements-search.txt")
    command = [word.replace("optuna", backend) for word in SEARCH]
    here, whole = tmp_path / "here", tmp_path / "whole"
    code, output, operations = commands(here, *command)
    assert code == 0, output
    here.rename(whole)
    few = None if backend == "optuna" else 20  # Ax takes seconds to import
    for point in spread(points(operations), few):
        again(commands, None, here, point, *command)
        assert rows(here / "trials.csv") == rows(whole / "trials.csv"), point
        for trial in whole.glob("trial=*"):
            check_run(here / trial.name, trial, is_job=True)
        found = json.loads((here / "search.json").read_text())
        assert found == json.loads((whole / "search.json").read_text())
