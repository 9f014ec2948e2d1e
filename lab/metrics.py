"""metrics.csv, the figures of each epoch, as numbers."""

import csv
import io
from pathlib import Path

from lab import reading
from lab.escape import one_line

MOST, MOST_ROWS = 64 * reading.MOST, 500_000  # bytes and epochs, which take hundreds of MB
LARGEST = 1e40  # as in a checkpoint: sums and ranges of such figures are finite
COLUMNS = ("train_loss", "val_loss", "val_accuracy", "lr", "seconds")


def read(folder: Path) -> list[dict[str, float | None]]:
    """A row per epoch: `epoch` and COLUMNS, None for what is not a finite number. Empty if the run
    has no file yet. Raises RunFolderError for a file that no run writes."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    names, found = ("epoch", *COLUMNS), []
    try:
        for row in csv.DictReader(io.StringIO(reading.read_text(path, MOST), newline="")):
            found.append({name: _number(row.get(name)) for name in names})
            if len(found) > MOST_ROWS:
                raise reading.RunFolderError(f"{path} is damaged: it has too many rows.")
    except csv.Error as error:
        raise reading.RunFolderError(f"{path} is damaged ({one_line(error)}).") from error
    return [row for row in found if row["epoch"] is not None]


def thinned(rows: list[dict], most: int, kept: dict | None = None) -> list[dict]:
    """At most `most` rows, evenly spaced, with the first, the last and the one that is `kept`."""
    if len(rows) <= most:
        return rows
    last = len(rows) - 1
    chosen = {round(i * last / (most - 1)) for i in range(most)}
    return [row for i, row in enumerate(rows) if i in chosen or row is kept]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None  # NaN is not
