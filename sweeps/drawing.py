"""The figure of a sweep, drawn from plain values.

Nothing of the project is imported here, so that a process that only draws starts fast.
"""

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, PANEL = 0.3, 0.95  # inches: a row, and what each panel has besides its rows
DPI = 150
PATIENCE = 30  # seconds; there is no notice if the process that draws was killed
Panels = list[dict[str, Any]]  # `sweeps.figure.panels` makes them
Draw = Callable[[Panels], Callable[[], bytes]]


@contextmanager
def drawing_beside() -> Iterator[Draw]:
    """A function that begins to draw panels, and returns one that waits for the PNG.

    They are drawn in a process of its own, which imports matplotlib meanwhile: that takes as long
    as reading a thousand runs. For a command that has no threads yet.
    """
    streams = sys.stdin, sys.stdout, sys.stderr
    # Elsewhere a new process would import everything again. A pipe to it would take the place
    # of a stream that is closed.
    if sys.platform != "linux" or None in streams:
        yield drawing_here
        return
    from multiprocessing import TimeoutError, get_context

    # The command itself ends on Ctrl-C, and its process with it.
    with get_context("fork").Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        pool.apply_async(_prepare)

        def begin(panels: Panels) -> Callable[[], bytes]:
            result = pool.apply_async(drawn, (panels,))

            def wait() -> bytes:
                try:
                    return result.get(PATIENCE)
                except TimeoutError:  # its process was killed, or starves
                    return drawn(panels)

            return wait

        yield begin


def _prepare() -> None:
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


def drawing_here(panels: Panels) -> Callable[[], bytes]:
    """The same in this process, once the PNG is asked for."""
    return partial(drawn, panels)


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
    axes.set_yticks(rows, panel["labels"], parse_math=False)  # a $ in a name is not a formula
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


def rendered(figure: "Figure") -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})
    return content.getvalue()
