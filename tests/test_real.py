"""The accuracy on the original files, as far as it can be tested in a few minutes."""

import json
import os
from pathlib import Path

import pytest
from conftest import PROJECT, run_folders

ROOT = Path(os.environ.get("DATA_DIR") or PROJECT / "data")


def is_available(name: str) -> bool:
    """Return whether the training images of `name` are under the data root, unpacked or not."""
    return any((ROOT / name / "raw").glob("train-images-idx3-ubyte*"))


pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (is_available("MNIST") and is_available("FashionMNIST")),
        reason=f"genuine MNIST and Fashion-MNIST are not under {ROOT}",
    ),
]


@pytest.mark.parametrize(
    ("model", "dataset", "min_accuracy"),
    [
        ("linear", "mnist", 0.92),
        ("linear", "fashion", 0.84),
        ("mlp", "mnist", 0.98),
        ("mlp", "fashion", 0.89),
    ],
)
def test_accuracy_with_the_defaults(script, tmp_path, model, dataset, min_accuracy):
    assert script(f"data_dir={ROOT}", f"model={model}", f"dataset={dataset}") == 0
    (folder,) = run_folders(tmp_path)
    assert json.loads((folder / "result.json").read_text())["test_accuracy"] >= min_accuracy


@pytest.mark.parametrize(("model", "min_accuracy"), [("cnn", 0.97), ("vit", 0.9)])
def test_accuracy_after_one_epoch(script, tmp_path, model, min_accuracy):
    assert script(f"data_dir={ROOT}", f"model={model}", "epochs=1") == 0
    (folder,) = run_folders(tmp_path)
    assert json.loads((folder / "result.json").read_text())["test_accuracy"] >= min_accuracy
