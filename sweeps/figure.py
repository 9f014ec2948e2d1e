"""The figure of a sweep."""

import heapq
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import files
from lab.escape import one_line
from sweeps.table import formatted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 60  # rows of the figure; more would not be legible


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Test accuracy of each setting, with a bar for the standard deviation over its seeds."""
    from matplotlib.figure import Figure

    label = "test accuracy in %, mean ± std over seeds; orange: best on validation"
    if len(rows) > MOST_DRAWN:
        label = f"the {MOST_DRAWN} best of {len(rows)} on validation: {label}"
        rows = heapq.nlargest(MOST_DRAWN, rows, key=lambda row: row["val_accuracy"][0])
    labels = [one_line(", ".join(map(formatted, row["setting"]))) or "all runs" for row in rows]
    means = [100 * row["test_accuracy"][0] for row in rows]
    stds = [100 * (row["test_accuracy"][1] or 0) for row in rows]
    figure = Figure(figsize=(7, 1 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colors = ["C1" if row["best"] else "C0" for row in rows]
    axes.errorbar(means, range(len(rows)), xerr=stds, fmt="none", ecolor="0.6", capsize=3)
    axes.scatter(means, range(len(rows)), c=colors, zorder=3)
    axes.set_yticks(range(len(rows)), labels, parse_math=False)  # a $ in a name is no formula
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    save(figure, path)


def save(figure: "Figure", path: Path) -> None:
    with files.replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)
