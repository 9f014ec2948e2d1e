import gzip
import hashlib
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
import torchvision
from conftest import PROJECT, composed, write_idx, write_mnist_like
from PIL import Image

import sources

FACTS = SimpleNamespace(in_channels=1, image_size=28, num_classes=10, mean=[0.13], std=[0.31])


class Offline(torchvision.datasets.MNIST):
    """MNIST on a machine without a network: the real class, with an unreachable mirror."""

    mirrors = ("http://127.0.0.1:9/",)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch):
    monkeypatch.setattr(sources, "_loaded", {})
    monkeypatch.setattr("lab.arrays.mixed", torch.arange)  # the order of the files


def test_torchvision_files_become_uint8_tensors(data_dir):
    train, test, _ = sources.load(torchvision.datasets.MNIST, data_dir, FACTS)
    assert train.images.shape == (640, 1, 28, 28) and train.images.dtype == torch.uint8
    assert test.images.shape == (160, 1, 28, 28) and test.labels.dtype == torch.int64


def test_files_are_read_once_per_process(data_dir, monkeypatch):
    first = sources.load(torchvision.datasets.MNIST, data_dir, FACTS)
    monkeypatch.setattr(sources, "_open", None)  # a second read would call it
    assert sources.load(torchvision.datasets.MNIST, data_dir, FACTS) is first


def test_colour_images_become_channels_first(tmp_path):
    def source(root, train, download):
        images = numpy.zeros((4, 6, 6, 3), dtype=numpy.uint8)
        images[..., 2] = 7
        return SimpleNamespace(data=images, targets=[0, 1, 2, 1])

    facts = SimpleNamespace(in_channels=3, image_size=6, num_classes=3, mean=[0] * 3, std=[1] * 3)
    train, _, _ = sources.load(source, tmp_path, facts)
    assert train.images.shape == (4, 3, 6, 6)
    assert train.images[:, 2].eq(7).all() and train.images[:, :2].eq(0).all()


def test_digits_need_no_files(tmp_path):
    facts = SimpleNamespace(in_channels=1, image_size=8, num_classes=10, mean=[0.3], std=[0.4])
    train, test, _ = sources.load(sources.Digits, tmp_path, facts)
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.max() == 255


def test_the_error_for_missing_files_names_them_and_a_remedy(tmp_path):
    with pytest.raises(sources.DataError, match=r"train-images-idx3-ubyte.gz is missing.*DATA_DIR"):
        sources.load(Offline, tmp_path, FACTS)


def test_the_error_for_a_truncated_file_names_it(tmp_path):
    write_mnist_like(tmp_path, "Offline")
    images = tmp_path / "Offline/raw/t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1000])
    with pytest.raises(sources.DataError, match="t10k-images-idx3-ubyte is not a whole IDX file"):
        sources.load(Offline, tmp_path, FACTS)


@pytest.mark.parametrize("content", [b"", b"\0", b"not an IDX file", b"\0\0\x08\xff\0\0"])
def test_the_error_for_a_file_in_another_format_names_it(tmp_path, content):
    write_mnist_like(tmp_path, "Offline")
    (tmp_path / "Offline/raw/train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(sources.DataError, match="train-labels-idx1-ubyte is not a whole IDX file"):
        sources.load(Offline, tmp_path, FACTS)


def test_an_archive_with_the_wrong_checksum_is_refused_and_never_unpacked(tmp_path):
    raw = tmp_path / "Offline/raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(sources.DataError, match=r"train-images-idx3-ubyte.gz is damaged.*md5"):
        sources.load(Offline, tmp_path, FACTS)
    assert not (raw / "train-images-idx3-ubyte").exists()


def write_archives(root: Path) -> type[Offline]:
    """Write a dataset that has only archives, as after a download; return its class."""
    write_mnist_like(root, "Packed")
    resources = []
    for path in sorted((root / "Packed/raw").iterdir()):
        archive = path.with_suffix(".gz")
        archive.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    return type("Packed", (Offline,), {"resources": resources})


def test_a_partially_unpacked_file_is_unpacked_again(tmp_path):
    source = write_archives(tmp_path)
    sources.load(source, tmp_path, FACTS)
    whole = tmp_path / "Packed/raw/train-images-idx3-ubyte"
    content = whole.read_bytes()
    whole.write_bytes(content[:1000])
    sources._loaded.clear()
    train, _, _ = sources.load(source, tmp_path, FACTS)
    assert len(train) == 640 and whole.read_bytes() == content


LOAD = """
import multiprocessing
import sys
from pathlib import Path
import sources
from test_sources import FACTS, Offline
source = type("Packed", (Offline,), {"resources": eval(sys.argv[2])})
def load():
    found = sources.load(source, Path(sys.argv[1]), FACTS)[2]
    print(found["data_sha256"] + "\\n", end="", flush=True)
processes = [multiprocessing.get_context("fork").Process(target=load) for _ in range(3)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


@pytest.mark.slow
def test_processes_that_unpack_concurrently_read_the_same_data(tmp_path):
    source = write_archives(tmp_path)
    command = [sys.executable, "-c", LOAD, str(tmp_path), repr(source.resources)]
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"}
    output = subprocess.check_output(command, env=environment, text=True)
    found = sources.load(source, tmp_path, FACTS)[2]
    assert output.splitlines() == [found["data_sha256"]] * 3 + ["[0, 0, 0]"]


@pytest.fixture
def read_only(monkeypatch):
    """Nothing can be written to a data folder: chmod would not stop root."""

    def refuse(self, *arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(sources.filelock.FileLock, "acquire", refuse)


def test_a_read_only_data_folder_can_be_read(tmp_path, read_only):
    write_mnist_like(tmp_path, "Offline")
    assert len(sources.load(Offline, tmp_path, FACTS)[0]) == 640


NOWHERE = "http://127.0.0.1:9/"
OFFLINE_CLASSES = {
    name: type(name, (getattr(torchvision.datasets, name),), {"mirrors": [NOWHERE], "url": NOWHERE})
    for name in ("MNIST", "EMNIST", "CIFAR10", "CIFAR100")
}
OFFLINE_CLASSES |= {
    "USPS": type("USPS", (torchvision.datasets.USPS,), {
        "split_list": {
            part: [NOWHERE, *entry[1:]]
            for part, entry in torchvision.datasets.USPS.split_list.items()
        }
    }),
    "QMNIST": type("QMNIST", (torchvision.datasets.QMNIST,), {
        "resources": {
            part: [(NOWHERE + url.rpartition("/")[2], md5) for url, md5 in pairs]
            for part, pairs in torchvision.datasets.QMNIST.resources.items()
        }
    }),
}  # fmt: skip


def offline(name: str):
    """One of torchvision's datasets as a config names it, without a network."""
    options = {"split": "letters"} if name == "EMNIST" else {}
    return partial(OFFLINE_CLASSES[name], **options)


def write_emnist(root: Path) -> None:
    raw = root / "EMNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        write_idx(raw / f"emnist-letters-{part}-images-idx3-ubyte", numpy.zeros((4, 28, 28)))
        write_idx(raw / f"emnist-letters-{part}-labels-idx1-ubyte", numpy.arange(4))


def write_cifar(root: Path) -> None:
    """Files of the original names and format: torchvision compares their md5."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": numpy.zeros((4, 3072), numpy.uint8), "labels": [0, 1, 2, 3]}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch))


EMNIST, CIFAR = "EMNIST/raw/emnist-letters", "cifar-10-batches-py"
FILES = [  # the dataset, what is done to its files, the file that is named, what is said of it
    ("MNIST", None, "MNIST/raw/train-images-idx3-ubyte.gz", "is missing and could not be downloa"),
    ("EMNIST", None, f"{EMNIST}-train-images-idx3-ubyte", "is missing, as is its archive gzip.zip"),
    ("EMNIST", f"rm {EMNIST}-test-labels-idx1-ubyte", f"{EMNIST}-test-labels-idx1-ubyte", "is mis"),
    ("EMNIST", f"cut {EMNIST}-train-images-idx3-ubyte", f"{EMNIST}-train-images-idx3-ubyte",
     "is not a whole IDX file"),
    ("EMNIST", "add EMNIST/raw/gzip.zip", "EMNIST/raw/gzip.zip", "is damaged or altered (md5"),
    ("CIFAR10", None, f"{CIFAR}/data_batch_1", "is missing, as is its archive cifar-10-python"),
    ("CIFAR10", f"add {CIFAR}/data_batch_1", f"{CIFAR}/data_batch_1", "is damaged or altered (md5"),
    ("CIFAR10", "add cifar-10-python.tar.gz", "cifar-10-python.tar.gz", "is damaged or altered ("),
    ("CIFAR100", None, "cifar-100-python/train", "is missing, as is its archive"),
    ("USPS", None, "usps.bz2", "is missing and could not be downloaded"),
    ("USPS", "add usps.bz2", "usps.bz2", "is damaged or altered (md5"),
    ("QMNIST", None, "QMNIST/raw/qmnist-train-images-idx3-ubyte.gz", "is missing and could not be"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "file", "said"), FILES)
def test_the_error_names_the_file_that_is_read_and_a_remedy(tmp_path, name, change, file, said):
    root = tmp_path / "data"
    if change:
        root.mkdir()
        what, _, changed = change.partition(" ")
        if name == "EMNIST" and "gzip" not in change:
            write_emnist(root)
        if name == "CIFAR10":
            write_cifar(root)
        path = root / changed
        path.parent.mkdir(parents=True, exist_ok=True)
        if what == "rm":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-100] if what == "cut" else b"something else")
    with pytest.raises(sources.DataError) as refused:
        sources.load(offline(name), root, FACTS)
    message = str(refused.value)
    assert message.startswith(f"{root / file} {said}")
    assert re.search("put the (original )?file there", message) and "dataset=digits" in message
    assert "urlopen" not in message and "Name or service" not in message
    assert root.exists() == bool(change)  # no folder is made for nothing


def test_the_files_of_emnist_are_read(tmp_path):
    write_emnist(tmp_path)
    facts = SimpleNamespace(**vars(FACTS) | {"num_classes": 4})
    assert len(sources.load(offline("EMNIST"), tmp_path, facts)[1]) == 4


def test_a_read_only_folder_of_archives_says_that_they_cannot_be_unpacked(tmp_path, read_only):
    source = write_archives(tmp_path)
    with pytest.raises(sources.DataError) as refused:
        sources.load(source, tmp_path, FACTS)
    file = tmp_path / "Packed/raw/t10k-images-idx3-ubyte"
    expected = (
        f"{file} is missing, and {file}.gz could not be unpacked ({tmp_path} cannot be written "
        "to): unpack it there, or copy"
    )
    assert str(refused.value).startswith(expected) and "set data_dir" in str(refused.value)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_refusal_leaves_no_folder_that_was_not_there(tmp_path, is_there):
    root = tmp_path / "a/b/data"
    if is_there:
        root.mkdir(parents=True)
    with pytest.raises(sources.DataError):
        sources.load(Offline, root, FACTS)
    assert not list(root.glob("*/*")) and not (root / "Offline").exists()
    assert root.exists() == is_there and (tmp_path / "a").exists() == is_there


def test_digits_leave_no_folder(tmp_path):
    facts = SimpleNamespace(in_channels=1, image_size=8, num_classes=10, mean=[0.3], std=[0.4])
    sources.load(sources.Digits, tmp_path / "data", facts)
    assert list(tmp_path.iterdir()) == []


def test_a_data_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(sources.DataError, match="data is not a folder: set data_dir"):
        sources.load(Offline, tmp_path / "data", FACTS)


def test_labels_that_are_not_one_number_per_image_are_refused(tmp_path):
    def source(root, train, download):
        return SimpleNamespace(data=numpy.zeros((4, 28, 28)), targets=numpy.zeros((4, 8)))

    with pytest.raises(sources.DataError, match=r"labels of shape \(4, 8\).*class numbers"):
        sources.load(source, tmp_path, FACTS)


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"image_size": 32}, "dataset.image_size"), ({"num_classes": 9}, "dataset.num_classes=9")],
)
def test_files_that_contradict_the_config_are_refused(data_dir, facts, message):
    wrong = SimpleNamespace(**vars(FACTS) | facts)
    with pytest.raises(sources.DataError, match=message):
        sources.load(partial(torchvision.datasets.MNIST), data_dir, wrong)


def test_more_labels_than_images_are_refused(tmp_path):
    write_mnist_like(tmp_path, "Offline")
    write_idx(tmp_path / "Offline/raw/train-labels-idx1-ubyte", numpy.zeros(641))
    with pytest.raises(sources.DataError, match="640 images but 641 labels"):
        sources.load(Offline, tmp_path, FACTS)


def facts_of(channels=3, size=32, classes=10, **more) -> SimpleNamespace:
    own = {"in_channels": channels, "image_size": size, "num_classes": classes}
    return SimpleNamespace(**own, mean=[0.5] * channels, std=[0.2] * channels, **more)


def pickled(path: Path, count: int, label: str, classes: int = 10) -> None:
    """A file of CIFAR: image i is red, with i in the green channel of its first row."""
    pixels = numpy.zeros((count, 3, 32, 32), numpy.uint8)
    pixels[:, 0], pixels[:, 1, 0] = 255, numpy.arange(count)[:, None]
    content = {"data": pixels.reshape(count, -1), label: [i % classes for i in range(count)]}
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def write_cifar10(root: Path, monkeypatch, count: int = 60) -> None:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name in names:
        pickled(root / "cifar-10-batches-py" / name, count, "labels")
    meta = root / "cifar-10-batches-py/batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    rename(monkeypatch, torchvision.datasets.CIFAR10, root / "cifar-10-batches-py", names)


def write_cifar100(root: Path, monkeypatch, count: int = 200) -> None:
    for name in ("train", "test"):
        pickled(root / "cifar-100-python" / name, count, "fine_labels", 100)
    meta = root / "cifar-100-python/meta"
    meta.write_bytes(pickle.dumps({"fine_label_names": [f"c{i}" for i in range(100)]}))
    rename(monkeypatch, torchvision.datasets.CIFAR100, root / "cifar-100-python", ["train", "test"])


def rename(monkeypatch, owner, folder: Path, names: list[str]) -> None:
    """Let torchvision expect the md5 of the files that were written."""
    known = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in names]
    monkeypatch.setattr(owner, "train_list", known[:-1])
    monkeypatch.setattr(owner, "test_list", known[-1:])
    name = owner.meta["filename"]
    md5 = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(owner, "meta", owner.meta | {"md5": md5})


def write_svhn(root: Path, monkeypatch, count: int = 60) -> None:
    from scipy.io import savemat

    files = {}
    for part in ("train", "test"):
        pixels = numpy.zeros((32, 32, 3, count), numpy.uint8)
        pixels[:, :, 0], pixels[0, :, 1] = 255, numpy.arange(count)
        labels = numpy.arange(count) % 10
        labels[labels == 0] = 10  # as the original files have it
        savemat(root / f"{part}_32x32.mat", {"X": pixels, "y": labels[:, None]})
        md5 = hashlib.md5((root / f"{part}_32x32.mat").read_bytes()).hexdigest()
        files[part] = [NOWHERE, f"{part}_32x32.mat", md5]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", files)


def write_letters(root: Path, split: str, first: int, classes: int, count: int = 100) -> None:
    raw = root / "EMNIST/raw"
    raw.mkdir(parents=True)
    images = numpy.zeros((count, 28, 28))
    images[:, 0, :] = 200  # the files have rows and columns exchanged
    for part in ("train", "test"):
        labels = numpy.arange(count) % classes + first
        write_idx(raw / f"emnist-{split}-{part}-images-idx3-ubyte", images)
        write_idx(raw / f"emnist-{split}-{part}-labels-idx1-ubyte", labels)


SHIPPED = {
    "cifar10": write_cifar10, "cifar100": write_cifar100, "svhn": write_svhn,
    "emnist": lambda root, _: write_letters(root, "balanced", 0, 47),
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_files_in_the_original_formats_are_trained_on(name, script, tmp_path, monkeypatch, capfd):
    SHIPPED[name](tmp_path, monkeypatch)
    arguments = ("debug=smoke", "model=linear", f"dataset={name}", f"data_dir={tmp_path}")
    assert script(*arguments, "hydra.run.dir=run") == 0
    assert "training images, " in capfd.readouterr().out
    train, test, _ = next(iter(sources._loaded.values()))
    classes = train.labels.max() + 1
    assert classes == {"cifar100": 100, "emnist": 47}.get(name, 10) and len(test) >= 60
    if name == "emnist":
        assert train.images[:, 0, :, 0].eq(200).all() and not train.images[:, 0, :, 1:].any()
    else:
        count = len(test)
        assert train.images[:, 0].eq(255).all() and not train.images[:, 2].any()
        assert train.images[:count, 1, 0, 5].tolist() == list(range(count))
        assert not train.images[:, 1, 1:].any()
        assert train.labels[:count].tolist() == [i % classes for i in range(count)]


def test_labels_that_begin_at_1_are_refused_with_the_remedy(tmp_path):
    write_letters(tmp_path, "letters", 1, 26)
    source, facts = partial(OFFLINE_CLASSES["EMNIST"], split="letters"), facts_of(1, 28, 26)
    with pytest.raises(sources.DataError) as refused:
        sources.load(source, tmp_path, facts)
    assert "labels 1 to 26, but" in str(refused.value)
    assert str(refused.value).endswith("set dataset.target_offset=1.")
    train, _, _ = sources.load(source, tmp_path, facts_of(1, 28, 26, target_offset=1))
    assert train.labels.tolist() == [i % 26 for i in range(100)]
    with pytest.raises(sources.DataError, match=r"labels -1 to 24 after target_offset=2.*offset=1"):
        sources.load(source, tmp_path, facts_of(1, 28, 26, target_offset=2))


def test_labels_of_too_many_classes_have_no_remedy(tmp_path):
    write_letters(tmp_path, "letters", 1, 26)
    with pytest.raises(sources.DataError, match=r"which allows 0 to 19\.$"):
        sources.load(
            partial(OFFLINE_CLASSES["EMNIST"], split="letters"), tmp_path, facts_of(1, 28, 20)
        )


def test_items_are_read_where_targets_have_another_shape(tmp_path):
    """QMNIST: its targets are eight numbers per image, of which its items have the class."""
    raw = tmp_path / "QMNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        images = numpy.arange(30)[:, None, None] + numpy.zeros((1, 28, 28))
        write_idx(raw / f"qmnist-{part}-images-idx3-ubyte", images)
        labels = (numpy.arange(30)[:, None] % 10 + [0, 9, 9, 9, 9, 9, 9, 9]).astype(">i4")
        header = numpy.array([0x0C02, 30, 8], ">i4").tobytes()
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(header + labels.tobytes())
    train, test, _ = sources.load(offline("QMNIST"), tmp_path, FACTS)
    assert train.labels.tolist() == [i % 10 for i in range(30)]
    assert test.to("cpu").images[:, 0, 5, 5].tolist() == list(range(30))


def write_signs(root: Path, count: int = 12) -> None:
    """GTSRB: folders of PPM files of different sizes, and a table of the test labels."""
    base = root / "gtsrb"
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number in range(count):
        size, color = (20 + number, 40), (10 * number, 0, 0)
        train = base / f"GTSRB/Training/{number % 3:05}/{number:05}.ppm"
        test = base / f"GTSRB/Final_Test/Images/{number:05}.ppm"
        for path in (train, test):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, color).save(path)
        lines.append(f"{number:05}.ppm;20;40;0;0;0;0;{number % 3}")
    (base / "GT-final_test.csv").write_text("\n".join(lines))


SPLITS = {"train": {"split": "train"}, "test": {"split": "test"}}


def test_items_of_different_sizes_are_decoded_once(tmp_path, monkeypatch):
    write_signs(tmp_path)
    facts, source = facts_of(3, 16, 3, **SPLITS), torchvision.datasets.GTSRB
    train, test, found = sources.load(source, tmp_path, facts)
    assert test.to("cpu").images[:, :, 8, 8].tolist() == [[10 * i, 0, 0] for i in range(12)]
    assert train.labels.tolist() == sorted(i % 3 for i in range(12))
    monkeypatch.setattr(sources, "_loaded", {})
    with monkeypatch.context() as patch:
        patch.setattr("lab.decoded._make", None)  # decoding them again would call it
        assert sources.load(source, tmp_path, facts)[2] == found
    (tmp_path / "gtsrb/GTSRB/Final_Test/Images/00003.ppm").write_bytes(b"no picture")
    monkeypatch.setattr(sources, "_loaded", {})
    with pytest.raises(sources.DataError, match=r"1 of 12 pictures .*: item 3 \(it is not a pic"):
        sources.load(source, tmp_path, facts)
    _, test, found = sources.load(source, tmp_path, facts, "skip")
    assert len(test) == 11 and found["skipped_images"] == 1
    assert test.labels.tolist() == [i % 3 for i in range(12) if i != 3]


def test_labels_that_change_are_noticed(tmp_path, monkeypatch):
    write_signs(tmp_path)
    facts, table = facts_of(3, 16, 3, **SPLITS), tmp_path / "gtsrb/GT-final_test.csv"
    sources.load(torchvision.datasets.GTSRB, tmp_path, facts)
    table.write_text(table.read_text().replace(";0\n", ";2\n"))
    monkeypatch.setattr(sources, "_loaded", {})
    _, test, _ = sources.load(torchvision.datasets.GTSRB, tmp_path, facts)
    assert 0 not in test.labels[:-3]


def test_a_dataset_without_a_root_or_a_download_is_read(tmp_path):
    asked = {"train": {"random_offset": 0}, "test": {"random_offset": 7}}
    source = partial(torchvision.datasets.FakeData, size=20, image_size=(3, 24, 24))
    train, test, _ = sources.load(source, tmp_path, facts_of(3, 24, 10, **asked))
    assert len(train) == len(test) == 20 and list(tmp_path.iterdir()) == []
    assert not torch.equal(train.to("cpu").images, test.to("cpu").images)


def test_validation_images_of_the_source_are_kept_apart(tmp_path):
    def source(root, split):
        count = {"training": 5, "validation": 3, "test": 2}[split]
        return SimpleNamespace(data=numpy.full((count, 8, 8), count), targets=[0] * count)

    parts = {"train": "training", "val": "validation", "test": "test"}
    asked = {part: {"split": name} for part, name in parts.items()}
    train, test, found = sources.load(source, tmp_path, facts_of(1, 8, **asked))
    assert [len(part) for part in (train, train.val, test)] == [5, 3, 2]
    assert train.val.images.unique().tolist() == [3]
    del asked["val"]
    assert sources.load(source, tmp_path, facts_of(1, 8, **asked))[2] != found


REFUSED_DATA = [  # what the dataset holds, what is said
    (
        {"data": numpy.full((4, 8, 8), 0.5), "targets": [0] * 4},
        "values of 0.5 to 0.5 .*from 0 to 2",
    ),
    ({"data": numpy.full((4, 8, 8), 256), "targets": [0] * 4}, "values of 256 to 256"),
    ({"data": numpy.full((4, 8, 8), -1), "targets": [0] * 4}, "values of -1 to -1"),
    ({"data": numpy.zeros((4, 8, 8)), "targets": [0.5] * 4}, "targets are not whole numbers"),
    ({"data": numpy.zeros((4, 8, 8)), "targets": ["a"] * 4}, "neither data and targets of numbers"),
    ({"targets": [0] * 4}, "neither data and targets of numbers"),
    ({"data": numpy.zeros((4, 8, 8)), "targets": [0] * 3}, "has 4 images but 3 labels"),
    ({"data": numpy.zeros((4, 9, 9)), "targets": [0] * 4}, r"= \(1, 9, 9\), but the config says"),
]


@pytest.mark.parametrize(("held", "said"), REFUSED_DATA, ids=lambda value: str(value)[:40])
def test_data_that_are_no_images_with_classes_are_refused(tmp_path, held, said):
    def source(root, train, download):
        return SimpleNamespace(**held)

    with pytest.raises(sources.DataError, match=said):
        sources.load(source, tmp_path, facts_of(1, 8))


@pytest.mark.parametrize("item", [("no picture", 0), (Image.new("L", (8, 8)), torch.ones(40))])
def test_items_that_are_no_pictures_with_classes_are_refused(tmp_path, item):
    class Items(torch.utils.data.Dataset):
        def __init__(self, root, train):
            pass

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return item

    with pytest.raises(sources.DataError, match=r"^Items: (its items give a str|the label of an)"):
        sources.load(Items, tmp_path, facts_of(1, 8))


def test_arguments_that_a_dataset_does_not_have_are_refused(tmp_path):
    source = torchvision.datasets.SVHN
    with pytest.raises(
        sources.DataError, match=r"^SVHN has no argument train: set dataset.train.*sp"
    ):
        sources.load(source, tmp_path, facts_of())
    asked = {"train": {"split": "tran"}, "test": {"split": "test"}}
    with pytest.raises(
        sources.DataError, match=r"^dataset.train: Unknown value 'tran' for argument"
    ):
        sources.load(source, tmp_path, facts_of(**asked))


def test_a_class_that_cannot_download_makes_no_folder(tmp_path):
    facts = facts_of(3, 16, 3, **SPLITS)
    with pytest.raises(sources.DataError):
        sources.load(torchvision.datasets.ImageNet, tmp_path / "data", facts)
    assert not (tmp_path / "data").exists()


def test_more_copies_of_the_images_than_fit_in_memory_are_refused():
    facts = composed("dataset=digits", "dataset.repeats=1000000000").dataset
    with pytest.raises(sources.DataError, match=r"dataset\.repeats=1000000000 needs"):
        sources.load(sources.Digits, Path("nowhere"), facts)


def test_pictures_of_a_folder_keep_their_names(tmp_path):
    expected = set()
    for part in ("train", "test"):
        for name, shade in (("a", 40), ("b", 200)):
            for number in range(5):
                path = tmp_path / f"pets/{part}/{name}/{part[:2]}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (shade, number, 0)).save(path)
                expected |= {str(path.relative_to(tmp_path / "pets"))}
    given = {"folder": "pets", "classes": ["a", "b"], "in_channels": 3, "image_size": 8}
    facts = facts_of(3, 8, 2, train={"split": "train"}, test={"split": "test"})
    sets = sources.load(partial(sources.PictureFolder, **given), tmp_path, facts)[:2]
    for image_set, part in zip(sets, ("train", "test"), strict=True):
        names = image_set[:7].names()
        assert len(names) == 7 and set(names) <= expected
        for name, label, pixel in zip(
            names, image_set.labels, image_set.images.read()[:, :, 0, 0], strict=False
        ):
            assert name == f"{part}/{'ab'[label]}/{part[:2]}{pixel[1]}.png"
