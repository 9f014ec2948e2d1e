"""metrics.csv as numbers, whoever wrote it."""

import itertools
import math

import pytest

from lab import metrics
from lab.reading import RunFolderError

HEAD = "epoch,train_loss,val_loss,val_accuracy,lr,seconds,images_per_second"


def test_numbers(tmp_path):
    assert metrics.read(tmp_path) == []
    rows = ["1,2.5,nan,0.5,1e-3,1,9", "2,x,,inf,0,1", "?,1,1,1,1,1,1"]
    (tmp_path / "metrics.csv").write_text("\n".join([HEAD, *rows]))
    first, second = metrics.read(tmp_path)
    figures = {"train_loss": 2.5, "val_loss": None, "val_accuracy": 0.5, "lr": 1e-3}
    assert first == {"epoch": 1, **figures, "seconds": 1}
    assert second["train_loss"] is second["val_accuracy"] is None and second["epoch"] == 2


def test_another_file(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("a,b\n1,2\n")
    assert metrics.read(tmp_path) == []
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RunFolderError, match="is not text"):
        metrics.read(tmp_path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(RunFolderError, match="is a link"):
        metrics.read(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 10, 11, 1000])
def test_thinned(count):
    rows = [{"epoch": i} for i in range(count)]
    kept = rows[count // 3]
    found = metrics.thinned(rows, 10, kept)
    assert len(found) <= 11 and found[0] is rows[0] and found[-1] is rows[-1] and kept in found
    steps = [b["epoch"] - a["epoch"] for a, b in itertools.pairwise(found)]
    assert count == 1 or max(steps) <= math.ceil(count / 9)


def test_a_file_of_too_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "MOST_ROWS", 9)
    (tmp_path / "metrics.csv").write_text(HEAD + "\n1" * 9)
    assert len(metrics.read(tmp_path)) == 9
    (tmp_path / "metrics.csv").write_text(HEAD + "\n1" * 10)
    with pytest.raises(RunFolderError, match="too many rows"):
        metrics.read(tmp_path)


@pytest.mark.parametrize("text", ["1e41", "-1e300", "nan", "inf", "1e999", "1_0x"])
def test_numbers_that_cannot_be_drawn(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(f"{HEAD}\n1,{text},1,1,1,1,1")
    assert metrics.read(tmp_path)[0]["train_loss"] is None
