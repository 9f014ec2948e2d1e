"""Shared fixtures: small datasets in the original file format, and calls to the entry points."""

import copy
import gc
import os
import runpy
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy
import pytest
import remembering
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig

PROJECT = Path(__file__).resolve().parent.parent
# Tests run in parallel, one per core, and floating-point sums depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"
# Shells start background commands with SIGINT ignored, which child processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
remembering.remember()
# No test cuts the power. What reaches the disk when a process is killed is tested in test_kills.py.
os.fsync = lambda _: None
gc.disable()


def pytest_collection_finish() -> None:
    """What has been imported stays: looking for garbage in it would take a tenth of the time."""
    gc.enable()
    gc.collect()
    gc.freeze()


def write_idx(path: Path, array: numpy.ndarray) -> None:
    """Write an IDX file of unsigned bytes, MNIST's format: http://yann.lecun.com/exdb/mnist."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(numpy.uint8).tobytes())


def write_mnist_like(root: Path, name: str, train: int = 640, test: int = 160) -> None:
    """Write ten noisy 28×28 patterns under the file names that torchvision expects."""
    random = numpy.random.default_rng(0)
    patterns = random.integers(0, 256, (10, 28, 28))
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        labels = numpy.arange(count) % 10
        images = 0.6 * patterns[labels] + random.integers(0, 100, (count, 28, 28))
        write_idx(raw / f"{part}-images-idx3-ubyte", images.clip(0, 255))
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        write_mnist_like(root, name)
    return root


def half_slow(cases: Iterable) -> list:
    """The cases of a table, every second one for the slow tests alone."""
    cases = list(cases)
    for number, case in enumerate(cases):
        if number % 2 and not hasattr(case, "marks"):
            values = case if isinstance(case, tuple) else (case,)
            cases[number] = pytest.param(*values, marks=pytest.mark.slow)
    return cases


def options(group: str) -> list[str]:
    """Return the options of a config group: the names of its files."""
    return sorted(path.stem for path in (PROJECT / "config" / group).glob("*.yaml"))


@cache
def _composed(*overrides: str):
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def composed(*overrides: str):
    """Compose the config of a command line; return a copy that the test may modify."""
    return copy.deepcopy(_composed(*overrides))


def call_with(monkeypatch: pytest.MonkeyPatch, file: str, *arguments: str) -> int:
    """Run `python FILE ARGUMENTS` in this process (one torch import); return the exit code."""
    monkeypatch.setattr(sys, "argv", [file, *arguments])
    if not any("hydra" in word and "mode" in word for word in arguments):
        # Hydra composes a config twice, at first to look for hydra.mode in it. Once saves half of
        # the time of most tests; those that start a process take Hydra as it is.
        monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
    try:
        runpy.run_path(str(PROJECT / file), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    finally:
        HydraConfig.instance().cfg = None  # the folder that paths start in, for instance
    return 0


@pytest.fixture
def call(tmp_path, monkeypatch, data_dir):
    """Call an entry point that writes its runs to `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    return partial(call_with, monkeypatch)


@contextmanager
def apart(folder: Path, data_dir: Path) -> Iterator[partial]:
    """Calls of entry points in `folder`, for what the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DATA_DIR", str(data_dir))
        yield partial(call_with, patch)


@pytest.fixture
def script(call):
    return partial(call, "script.py")


@pytest.fixture
def evaluate(call):
    return partial(call, "evaluate.py")


def command_of() -> list[str]:
    """The command that `start` starts, which a test may replace."""
    return [sys.executable, str(PROJECT / "script.py")]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Start `python script.py ARGUMENTS` as the leader of a new process group."""
    return subprocess.Popen(
        [*command_of(), *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def run_folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("runs/**/result.json"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A real browser: tests that use it are marked `browser`."""
    from browser import Browser, reason_to_skip

    if reason := reason_to_skip():
        pytest.skip(reason)
    browser = Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield browser
    finally:
        browser.close()
