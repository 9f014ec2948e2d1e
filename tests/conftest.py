"""Small data files that go through the real loading code, and the real command in this process."""

import copy
import os
import runpy
import signal
import struct
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy
import pytest
from hydra import compose, initialize_config_dir

PROJECT = Path(__file__).resolve().parent.parent
# Tests run side by side, one on each core. Sums depend on the threads: killed runs are compared.
os.environ["OMP_NUM_THREADS"] = "1"
# A command that a shell runs in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def write_idx(path: Path, array: numpy.ndarray) -> None:
    """An IDX file of unsigned bytes, as MNIST's are: http://yann.lecun.com/exdb/mnist."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(numpy.uint8).tobytes())


def write_mnist_like(root: Path, name: str, train: int = 640, test: int = 160) -> None:
    """Ten noisy patterns of 28×28 pixels under the names that torchvision looks for."""
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


@cache
def _composed(*overrides: str):
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def composed(*overrides: str):
    """The config that a command line gives, a copy for the test to change."""
    return copy.deepcopy(_composed(*overrides))


def call_with(monkeypatch: pytest.MonkeyPatch, file: str, *arguments: str) -> int:
    """Call an entry point as `python FILE ARGUMENTS` would, in this process (one torch import);
    returns its exit code."""
    monkeypatch.setattr(sys, "argv", [file, *arguments])
    try:
        runpy.run_path(str(PROJECT / file), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture
def call(tmp_path, monkeypatch, data_dir):
    """Call an entry point whose runs land in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    return partial(call_with, monkeypatch)


@pytest.fixture
def script(call):
    return partial(call, "script.py")


@pytest.fixture
def evaluate(call):
    return partial(call, "evaluate.py")


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """`python script.py ARGUMENTS` in a process that leads a group of its own."""
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "script.py"), *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def run_folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("runs/**/result.json"))
