"""On the genuine files: what the README promises, as far as a few minutes can show it."""

import json
import os
from pathlib import Path

import pytest
from conftest import PROJECT, run_folders

ROOT = Path(os.environ.get("DATA_DIR") or PROJECT / "data")


def is_there(name: str) -> bool:
    """Whether the training images of `name` lie under the data root, unpacked or not."""
    return any((ROOT / name / "raw").glob("train-images-idx3-ubyte*"))


pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (is_there("MNIST") and is_there("FashionMNIST")),
        reason=f"genuine MNIST and Fashion-MNIST are not under {ROOT}",
    ),
]


@pytest.mark.parametrize(
    ("model", "dataset", "at_least"),
    [
        ("linear", "mnist", 0.92),
        ("linear", "fashion", 0.84),
        ("mlp", "mnist", 0.98),
        ("mlp", "fashion", 0.89),
    ],
)
def test_accuracy_with_the_defaults(script, tmp_path, model, dataset, at_least):
    assert script(f"data_dir={ROOT}", f"model={model}", f"dataset={dataset}") == 0
    (folder,) = run_folders(tmp_path)
    assert json.loads((folder / "result.json").read_text())["test_accuracy"] >= at_least


@pytest.mark.parametrize(("model", "at_least"), [("cnn", 0.97), ("vit", 0.9)])
def test_accuracy_after_one_epoch(script, tmp_path, model, at_least):
    assert script(f"data_dir={ROOT}", f"model={model}", "epochs=1") == 0
    (folder,) = run_folders(tmp_path)
    assert json.loads((folder / "result.json").read_text())["test_accuracy"] >= at_least
