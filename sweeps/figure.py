"""The figure of a sweep: a panel per dataset, a row per setting."""

import heapq
import io
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import files
from lab.escape import one_line
from sweeps.table import formatted, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 60  # rows of the figure; more would not be legible
LONGEST = 44  # characters of a label
ROW, PANEL = 0.3, 0.95  # inches: a row, and what each panel has beside its rows
DPI = 150


Draw = Callable[[list[dict[str, Any]]], "Future[bytes]"]


@contextmanager
def drawing_beside() -> Iterator[Draw]:
    """A function that draws panels in a process of its own, which imports matplotlib meanwhile:
    that takes as long as reading a thousand runs. For a command that has no threads yet."""
    if sys.platform != "linux":  # elsewhere a new process would import everything once more
        yield draw_here
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("fork"), _prepare) as pool:
        pool.submit(int)  # starts the process
        yield lambda panels: pool.submit(drawn, panels)


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself ends on Ctrl-C
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


def draw_here(panels: list[dict[str, Any]]) -> "Future[bytes]":
    """Draw panels now, in this process."""
    future: Future[bytes] = Future()
    future.set_result(drawn(panels))
    return future


def panels(rows: list[dict[str, Any]], varied: list[str]) -> list[dict[str, Any]]:
    """What the figure says, as plain values: for each dataset its best rows, in their order."""
    keys = [key for key in varied if key != "dataset"]
    place = varied.index("dataset") if "dataset" in varied else None
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault("" if place is None else row["setting"][place], []).append(row)
    most = max(1, MOST_DRAWN // len(found))
    shown = list(found.items())[:MOST_DRAWN]
    return [_panel(dataset, members, most, keys, place) for dataset, members in shown]


def _panel(
    dataset: str, rows: list[dict[str, Any]], most: int, keys: list[str], place: int | None
) -> dict[str, Any]:
    shown = rows
    if len(rows) > most:
        best = heapq.nlargest(most, range(len(rows)), key=lambda i: rows[i]["val_accuracy"][0])
        shown = [rows[index] for index in best]
    parts = [dataset, f"the {most} best of {len(rows)} on validation" if shown is not rows else ""]
    cells = [[v for i, v in enumerate(row["setting"]) if i != place] for row in shown]
    return {
        "title": one_line(": ".join(filter(None, parts))),
        "keys": shortened(", ".join(short(keys))),
        "labels": [shortened(", ".join(map(formatted, cell))) or "all runs" for cell in cells],
        "means": [100 * row["test_accuracy"][0] for row in shown],
        "stds": [100 * (row["test_accuracy"][1] or 0) for row in shown],
        "best": [row["best"] and len(rows) > 1 for row in shown],
        "is_spread": any(row["test_accuracy"][1] is not None for row in shown),
    }


def shortened(text: object, most: int = LONGEST) -> str:
    """One line of at most `most` characters, without the middle of a longer one."""
    text, half = one_line(text), most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[1 - half :]}"


def drawn(panels: list[dict[str, Any]]) -> bytes:
    """The figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = [len(panel["labels"]) for panel in panels]
    height = sum(ROW * size + PANEL for size in sizes)
    figure = Figure(figsize=(7, height), dpi=DPI)
    FigureCanvasAgg(figure)
    top = height
    for panel, size in zip(panels, sizes, strict=True):
        top -= ROW * size + PANEL
        # A layout engine would measure every text twice, which takes longer than all the rest.
        axes = figure.add_axes((0, (top + 0.55) / height, 0.97, (ROW * size) / height))
        _draw_panel(axes, panel)
    _make_room(figure)
    return rendered(figure)


def _draw_panel(axes: Any, panel: dict[str, Any]) -> None:
    rows = range(len(panel["labels"]))
    colors = ["C1" if best else "C0" for best in panel["best"]]
    if panel["is_spread"]:
        axes.errorbar(panel["means"], rows, xerr=panel["stds"], fmt="none", ecolor="0.6", capsize=3)
    axes.scatter(panel["means"], rows, c=colors, zorder=3)
    axes.set_yticks(rows, panel["labels"], parse_math=False)  # a $ in a name is no formula
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=7)
    spread = ", mean ± std over seeds" if panel["is_spread"] else ""
    best = "; orange: best on validation" if any(panel["best"]) else ""
    axes.set_xlabel(f"test accuracy in %{spread}{best}")
    axes.set_title(panel["title"], fontsize="medium", parse_math=False)
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    axes.annotate(panel["keys"], (0, 1), (-7, 5), ha="right", color="0.4", **place)
    axes.grid(axis="x", alpha=0.3)


def _make_room(figure: "Figure") -> None:
    """Move the axes to the right of the longest label."""
    renderer, width = figure.canvas.get_renderer(), figure.bbox.width
    texts = [text for axes in figure.axes for text in (*axes.get_yticklabels(), *axes.texts)]
    widest = max(
        renderer.get_text_width_height_descent(
            text.get_text(), text.get_fontproperties(), ismath=False
        )[0]
        for text in texts
    )
    left = min(0.7, (widest + 0.2 * DPI) / width)
    for axes in figure.axes:
        _, bottom, _, height = axes.get_position().bounds
        axes.set_position((left, bottom, 0.97 - left, height))


def save(figure: "Figure", path: Path) -> None:
    write(path, rendered(figure))


def write(path: Path, content: bytes) -> None:
    with files.replacing(path) as file:
        file.write(content)


def rendered(figure: "Figure") -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})
    return content.getvalue()
