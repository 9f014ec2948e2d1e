"""The epochs of many runs, from metrics.csv: how far a run is, and its curves for a page.

`lab.metrics` reads all of one run. Here, as little as is shown of a thousand.
"""

import csv
import io
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import reading
from lab.reading import RunFolderError
from lab.schema import MAX_EPOCHS
from sweeps.jobs import duration
from sweeps.table import number

MOST = 16 * reading.MOST  # bytes of a file whose curves are shown: a hundred thousand epochs
TAIL = 2**13  # bytes with the first or the last lines
RECENT = 5  # epochs whose duration is that of the next ones
CURVES = ("val_accuracy", "train_loss", "val_loss")


def progress(run: dict[str, Any]) -> dict[str, Any]:
    """The last finished epoch of a run, the accuracy there, and about how many seconds are left."""
    epochs = number(run["values"].get("epochs")) or 0
    total = {"epochs": int(epochs)} if 1 <= epochs <= MAX_EPOCHS else {}
    try:
        rows, written = _last_rows(run["folder"] / "metrics.csv")
        durations = [float(row["seconds"]) for row in rows]
        last = {key: float(rows[-1][key]) for key in ("epoch", "val_accuracy")}
    except (RunFolderError, csv.Error, IndexError, KeyError, TypeError, ValueError):
        return {"epoch": 0} | total  # no epoch has ended yet, or the file is damaged
    if not all(map(math.isfinite, (*durations, *last.values()))):
        return {"epoch": 0} | total
    found = {"epoch": int(last["epoch"]), "val_accuracy": last["val_accuracy"]} | total
    if total:
        left = sum(durations) / len(durations) * (total["epochs"] - last["epoch"])
        found["left"] = max(0.0, left - max(0.0, time.time() - written))
    return found


def told(now: dict[str, Any]) -> tuple[str, str, str]:
    """The `progress` of a run as text: its epoch, its accuracy in %, the time left."""
    epoch = f"{now['epoch']} of {now['epochs']}" if "epochs" in now else str(now["epoch"])
    accuracy = f"{100 * now['val_accuracy']:.2f}" if "val_accuracy" in now else ""
    left = "unknown" if now.get("left") is None else f"about {duration(now['left'])}"
    return epoch, accuracy, left


def _last_rows(path: Path) -> tuple[list[dict[str, str]], float]:
    """The last rows of metrics.csv, however long it is, and when it was written."""
    with reading.opened(path, most=None) as file:
        head = file.readline(TAIL).decode(errors="replace")
        found = os.fstat(file.fileno())
        file.seek(max(len(head.encode()), found.st_size - TAIL))
        lines = file.read(TAIL).decode(errors="replace").splitlines()
    return list(csv.DictReader([head, *lines[-RECENT:]])), found.st_mtime


def curves(folder: Path, most: int) -> tuple[int, list[list[float | None]]] | None:
    """The number of epochs of a run, and its CURVES at those of them that are `shown`; None if they
    cannot be read."""
    try:
        lines = reading.read_text(folder / "metrics.csv", MOST).splitlines()
        head, *rows = csv.reader(io.StringIO("\n".join([lines[0], *_chosen(lines[1:], most)])))
        places = [head.index(name) for name in CURVES]
        return len(lines) - 1, [[_rounded(row[place]) for row in rows] for place in places]
    except (RunFolderError, IndexError, ValueError, csv.Error):
        return None


def _chosen(lines: Sequence[str], most: int) -> list[str]:
    return [lines[epoch - 1] for epoch in shown(len(lines), most)]


def shown(epochs: int, most: int) -> list[int]:
    """At most `most` epochs, the first and the last among them, at even distances. overview.js has
    the same formula."""
    count = min(epochs, most)
    return [1 + index * (epochs - 1) // max(1, count - 1) for index in range(count)]


def _rounded(text: str) -> float | None:
    """As many digits as are seen; None for what is not a finite number."""
    value = float(text)
    if 0.01 <= value < 1000:  # nearly all are, and this is faster
        return round(value, 4)
    return float(f"{value:.4g}") if math.isfinite(value) else None
