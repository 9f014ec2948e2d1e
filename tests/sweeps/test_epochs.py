"""How far a run is, and its curves."""

import itertools
import os
import time

import pytest
from fabricated import fabricate, write_metrics

from sweeps import epochs

HEAD = "epoch,train_loss,val_loss,val_accuracy,lr,seconds,images_per_second\n"


def run_in(folder, epochs="10"):
    return {"folder": folder, "values": {"epochs": epochs}}


@pytest.fixture
def folder(tmp_path):
    return fabricate(tmp_path / "run")


def test_the_time_left(folder):
    write_metrics(folder, [0.5, 0.6, 0.7], seconds=100)
    now = epochs.progress(run_in(folder))
    assert (now["epoch"], now["epochs"], now["val_accuracy"]) == (3, 10, 0.7)
    assert 690 < now["left"] <= 700
    os.utime(folder / "metrics.csv", (0, time.time() - 250))  # an epoch has begun long ago
    assert 440 < epochs.progress(run_in(folder))["left"] <= 450
    assert epochs.told(epochs.progress(run_in(folder))) == ("3 of 10", "70.00", "about 7 min")


def test_a_run_without_an_epoch(folder):
    assert epochs.progress(run_in(folder)) == {"epoch": 0, "epochs": 10}
    assert epochs.told(epochs.progress(run_in(folder))) == ("0 of 10", "", "unknown")
    (folder / "metrics.csv").write_text(HEAD)
    assert epochs.progress(run_in(folder)) == {"epoch": 0, "epochs": 10}


def test_only_the_end_of_a_long_file_is_read(folder, monkeypatch):
    write_metrics(folder, [n / 20_000 for n in range(20_000)])
    monkeypatch.setattr(epochs.reading, "read_text", None)
    now = epochs.progress(run_in(folder, "20000"))
    assert now["epoch"] == 20_000 and now["val_accuracy"] == 19_999 / 20_000


@pytest.mark.parametrize(
    ("total", "line"),
    [
        ("10", "x,1,1,1,1,1,1"),
        ("10", "1e999,1,1,1,1,1,1"),
        ("10", "1,1,1,nan,1,1,1"),
        ("10", "1,1,1,1,1,inf,1"),
        ("10", "\0" * 99),
        ("10", '"' * 99),
        ("10", "9" * 5000),
        ("nan", "1,1,1,1,1,1,1"),
        ("inf", "1,1,1,1,1,1,1"),
        ("1e300", "1,1,1,1,1,1e300,1"),
        ("${x}", "1e15,1,1,1,1,1e-300,1"),
    ],
)
def test_a_hostile_file_is_no_error(folder, total, line):
    (folder / "metrics.csv").write_text(HEAD + line)
    assert all(len(text) < 99 for text in epochs.told(epochs.progress(run_in(folder, total))))
    epochs.curves(folder, 60)


def test_links_are_not_followed(folder, tmp_path):
    write_metrics(fabricate(tmp_path / "other"), [0.9])
    (folder / "metrics.csv").symlink_to(tmp_path / "other/metrics.csv")
    assert epochs.progress(run_in(folder)) == {"epoch": 0, "epochs": 10}
    assert epochs.curves(folder, 60) is None


def test_curves_have_as_many_digits_as_are_seen(folder):
    write_metrics(folder, [0.123456, float("nan"), 1, 0.00123456, -1e9])
    count_read, (accuracy, train, val) = epochs.curves(folder, 60)
    assert (count_read, accuracy) == (5, [0.1235, None, 1.0, 0.001235, -1e9])
    assert train[:3] == [0.8765, None, 0.0] and val[:3] == [0.9383, None, 0.5]


@pytest.mark.parametrize("count", [1, 2, 59, 60, 61, 1000, 12345])
def test_curves_are_thinned_evenly(folder, count):
    shown = epochs.shown(count, 60)
    assert len(shown) == min(count, 60) and shown[0] == 1 and shown[-1] == count
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    write_metrics(folder, [n / count for n in range(1, count + 1)])
    count_read, (accuracy, *_) = epochs.curves(folder, 60)
    assert count_read == count
    assert accuracy == pytest.approx([epoch / count for epoch in shown], abs=5.1e-5)
