"""The figure of a sweep, as matplotlib draws it."""

import io
import subprocess
import sys

import pytest
from conftest import PROJECT
from matplotlib import image
from test_figure import row

from sweeps import drawing, figure


@pytest.fixture
def axes(monkeypatch):
    """Draws panels; returns the axes as they are when they are rendered."""
    figures = []
    monkeypatch.setattr(drawing, "rendered", lambda figure: figures.append(figure) or b"")

    def draw(rows, varied):
        drawing.drawn(figure.panels(rows, varied))
        return figures.pop().axes

    return draw


@pytest.mark.parametrize("count", [1, 2, 3, 60])
def test_no_point_is_cut_off(axes, count):
    (panel,) = axes([row(str(n), test=0.9 + n / 1e3) for n in range(count)], ["lr"])
    points = panel.collections[0].get_offsets()
    bottom, top = panel.get_ylim()
    left, right = panel.get_xlim()
    for x, y in points:
        assert top + 0.4 < y < bottom - 0.4 and left < x < right


def test_labels_lie_within_the_figure(axes):
    rows = [row("$x$ and <b>" * 9, "w" * 99), row("short", "other")]
    for panel in axes(rows, ["model", "dataset"]):
        for label in (*panel.get_yticklabels(), *panel.texts):
            box = label.get_window_extent(panel.figure.canvas.get_renderer())
            assert box.x0 >= 0
            assert box.x1 <= panel.get_window_extent().x0


def test_the_label_of_the_axis_says_what_is_there(axes):
    (one,) = axes([row("a", best=True), row("b")], ["model"])
    assert one.get_xlabel() == "test accuracy in %; orange: best on validation"
    (several,) = axes([row("a", std=0.01), row("b", std=0.02)], ["model"])
    assert several.get_xlabel() == "test accuracy in %, mean ± std over seeds"
    assert all(float(text.get_text()) < 101 for text in several.get_xticklabels())


def test_a_png_is_drawn_here_and_beside():
    panels = figure.panels([row("a", std=0.01), row("b")], ["model"])
    here = drawing.drawing_here(panels)()
    with drawing.drawing_beside() as draw:
        beside = draw(panels)()
    assert here == beside
    assert image.imread(io.BytesIO(here)).shape[1] == 7 * drawing.DPI


def test_a_process_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(drawing, "PATIENCE", 0)
    panels = figure.panels([row("a"), row("b")], ["model"])
    with drawing.drawing_beside() as draw:
        assert draw(panels)().startswith(b"\x89PNG")


def test_what_fails_beside_is_raised_here():
    with drawing.drawing_beside() as draw, pytest.raises(ValueError):
        draw([])()


def test_the_process_that_draws_imports_nothing_of_the_project():
    command = [sys.executable, "-c", "import sys, sweeps.drawing; print(*sys.modules)"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert "sweeps" in tops and not tops & {"lab", "hydra", "omegaconf", "torch", "yaml"}
