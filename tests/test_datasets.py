import gzip
import hashlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
import torchvision
from conftest import PROJECT, write_idx, write_mnist_like

import datasets

FACTS = SimpleNamespace(in_channels=1, image_size=28, num_classes=10, mean=[0.13], std=[0.31])


class Offline(torchvision.datasets.MNIST):
    """MNIST on a machine without a network: the real class, with mirrors that nobody answers."""

    mirrors = ("http://127.0.0.1:9/",)


@pytest.fixture(autouse=True)
def nothing_loaded_before(monkeypatch):
    monkeypatch.setattr(datasets, "_loaded", {})


def test_torchvision_files_become_uint8_tensors(data_dir):
    train, test, _ = datasets.load(torchvision.datasets.MNIST, data_dir, FACTS)
    assert train.images.shape == (640, 1, 28, 28) and train.images.dtype == torch.uint8
    assert test.images.shape == (160, 1, 28, 28) and test.labels.dtype == torch.int64


def test_files_are_read_once_a_process(data_dir, monkeypatch):
    first = datasets.load(torchvision.datasets.MNIST, data_dir, FACTS)
    monkeypatch.setattr(datasets, "_open", None)  # a second reading would call it
    assert datasets.load(torchvision.datasets.MNIST, data_dir, FACTS) is first


def test_colour_images_come_in_channels_first(tmp_path):
    def source(root, train, download):
        images = numpy.zeros((4, 6, 6, 3), dtype=numpy.uint8)
        images[..., 2] = 7
        return SimpleNamespace(data=images, targets=[0, 1, 2, 1])

    facts = SimpleNamespace(in_channels=3, image_size=6, num_classes=3, mean=[0] * 3, std=[1] * 3)
    train, _, _ = datasets.load(source, tmp_path, facts)
    assert train.images.shape == (4, 3, 6, 6)
    assert train.images[:, 2].eq(7).all() and train.images[:, :2].eq(0).all()


def test_digits_need_no_file(tmp_path):
    facts = SimpleNamespace(in_channels=1, image_size=8, num_classes=10, mean=[0.3], std=[0.4])
    train, test, _ = datasets.load(datasets.Digits, tmp_path, facts)
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.max() == 255


def test_missing_files_are_named_with_what_to_do(tmp_path):
    with pytest.raises(
        datasets.DataError, match=r"train-images-idx3-ubyte.gz is missing.*DATA_DIR"
    ):
        datasets.load(Offline, tmp_path, FACTS)


def test_a_truncated_file_is_named(tmp_path):
    write_mnist_like(tmp_path, "Offline")
    images = tmp_path / "Offline/raw/t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1000])
    with pytest.raises(datasets.DataError, match="t10k-images-idx3-ubyte is not a whole IDX file"):
        datasets.load(Offline, tmp_path, FACTS)


@pytest.mark.parametrize("content", [b"", b"\0", b"not an IDX file", b"\0\0\x08\xff\0\0"])
def test_a_file_that_is_no_idx_file_is_named(tmp_path, content):
    write_mnist_like(tmp_path, "Offline")
    (tmp_path / "Offline/raw/train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(datasets.DataError, match="train-labels-idx1-ubyte is not a whole IDX file"):
        datasets.load(Offline, tmp_path, FACTS)


def test_an_archive_with_the_wrong_md5_is_named_and_never_read(tmp_path):
    raw = tmp_path / "Offline/raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(datasets.DataError, match=r"train-images-idx3-ubyte.gz is damaged.*md5"):
        datasets.load(Offline, tmp_path, FACTS)
    assert not (raw / "train-images-idx3-ubyte").exists()


def packed(root: Path) -> type[Offline]:
    """A data set of archives alone, as a finished download leaves it, and its class."""
    write_mnist_like(root, "Packed")
    resources = []
    for path in sorted((root / "Packed/raw").iterdir()):
        archive = path.with_suffix(".gz")
        archive.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    return type("Packed", (Offline,), {"resources": resources})


def test_what_a_killed_process_left_half_unpacked_is_unpacked_again(tmp_path):
    source = packed(tmp_path)
    datasets.load(source, tmp_path, FACTS)
    whole = tmp_path / "Packed/raw/train-images-idx3-ubyte"
    content = whole.read_bytes()
    whole.write_bytes(content[:1000])
    datasets._loaded.clear()
    train, _, _ = datasets.load(source, tmp_path, FACTS)
    assert len(train) == 640 and whole.read_bytes() == content


LOAD = """
import multiprocessing
import sys
from pathlib import Path
import datasets
from test_datasets import FACTS, Offline
source = type("Packed", (Offline,), {"resources": eval(sys.argv[2])})
def load():
    print(datasets.load(source, Path(sys.argv[1]), FACTS)[2], flush=True)
processes = [multiprocessing.get_context("fork").Process(target=load) for _ in range(3)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


def test_processes_that_unpack_at_once_read_the_same(tmp_path):
    source = packed(tmp_path)
    command = [sys.executable, "-c", LOAD, str(tmp_path), repr(source.resources)]
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"}
    output = subprocess.check_output(command, env=environment, text=True)
    assert output.splitlines() == [datasets.load(source, tmp_path, FACTS)[2]] * 3 + ["[0, 0, 0]"]


def test_a_data_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    write_mnist_like(tmp_path, "Offline")

    def refuse(self, *arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(datasets.filelock.FileLock, "acquire", refuse)  # chmod does not stop root
    assert len(datasets.load(Offline, tmp_path, FACTS)[0]) == 640


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [({"image_size": 32}, "dataset.image_size"), ({"num_classes": 9}, "dataset.num_classes=9")],
)
def test_files_that_contradict_the_config_are_refused(data_dir, facts, sentence):
    wrong = SimpleNamespace(**vars(FACTS) | facts)
    with pytest.raises(datasets.DataError, match=sentence):
        datasets.load(partial(torchvision.datasets.MNIST), data_dir, wrong)


def test_more_labels_than_images_are_refused(tmp_path):
    write_mnist_like(tmp_path, "Offline")
    write_idx(tmp_path / "Offline/raw/train-labels-idx1-ubyte", numpy.zeros(641))
    with pytest.raises(datasets.DataError, match="640 images but 641 labels"):
        datasets.load(Offline, tmp_path, FACTS)
