"""The figures of a search, drawn from trials."""

import random

import pytest
from omegaconf import OmegaConf

from sweeps import search_figures
from sweeps.space import Choice, Interval
from sweeps.trial import Trial

LONG = "[crop_flip,cutout,mixup,cutmix,randaugment]"
SPACE = {
    "optimizer.lr": Interval(1e-4, 1e-1, log=True),
    "batch_size": Choice((64, 128, 256)),
    "augmentation": Choice(("none", "$x$", LONG)),
    "epochs": Interval(1, 8),
    "model.dropout": Interval(0.0, 0.5, step=0.1),
}


def trials(count: int, objectives: int = 1) -> list[Trial]:
    draw = random.Random(0)
    found = []
    for number in range(count):
        lr = 10 ** draw.uniform(-4, -1)
        params = {
            "optimizer.lr": lr, "batch_size": draw.choice((64, 128, 256)),
            "augmentation": draw.choice(("none", LONG)), "epochs": draw.randint(1, 8),
            "model.dropout": draw.randint(0, 5) / 10,
        }  # fmt: skip
        values = (lr, draw.random())[:objectives]
        found.append(Trial(number, params, "finished", values))
    return found


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a search; returns the figures by their names, as they are when they are rendered."""
    figures = []
    monkeypatch.setattr(search_figures, "rendered", lambda figure: figures.append(figure) or b"")

    def draw(count: int, *directions: str, space=SPACE):
        names = ["val_accuracy", "seconds"][: len(directions)]
        settings = OmegaConf.create({"objectives": names, "directions": list(directions)})
        search_figures.draw(tmp_path, settings, space, trials(count, len(directions)))
        names = [
            path.stem for path in sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_ctime_ns)
        ]
        return dict(zip(names, figures, strict=True))

    return draw


@pytest.mark.parametrize("count", [1, 4])
def test_trials_are_whole_numbers_and_points_are_inside(drawn, count):
    figures = drawn(count, "maximize", "minimize")
    assert list(figures) == ["history", "parallel", "pareto"]
    for panel in figures["history"].axes:
        figures["history"].draw_without_rendering()
        left, right = panel.get_xlim()
        ticks = [tick for tick in panel.get_xticks() if left <= tick <= right]
        assert ticks and all(tick == int(tick) for tick in ticks)
        assert left < 0 and right > count - 1


def test_labels_are_shown_in_full_or_shortened(drawn):
    axes = drawn(3, "maximize")["parallel"].axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert {"0.0001", "0.1", "64", "128", "256", "none", "$x$", "1", "8"} <= set(texts)
    assert all(len(text) <= search_figures.LONGEST for text in texts)
    assert not any(text.get_parse_math() for text in axes.texts)


@pytest.mark.parametrize(("direction", "best"), [("maximize", -1), ("minimize", 0)])
def test_the_best_trials_are_on_top(drawn, direction, best):
    axes = drawn(4, direction)["parallel"].axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == len(SPACE)]
    values = sorted(trials(4), key=lambda trial: trial.values[0])
    heights = [allowed.position(values[best].params[key]) for key, allowed in SPACE.items()]
    assert list(lines[-1].get_ydata()) == heights


def test_one_parameter_and_equal_values(drawn):
    space = {"optimizer.lr": SPACE["optimizer.lr"]}
    assert list(drawn(1, "maximize", space=space)) == ["history", "parallel"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_is_drawn_by_optuna_from_any_trials(drawn, direction):
    """Also from those of Ax, which has no study of Optuna's. Here, the value is the lr itself."""
    pytest.importorskip("optuna")
    axes = drawn(20, direction)["importance"].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    shares = [bar.get_width() for bar in axes.patches]
    assert sorted(names) == sorted(SPACE)
    assert names[shares.index(max(shares))] == "optimizer.lr" and max(shares) > 0.7
    assert axes.get_xlabel() == "importance for val_accuracy, as a share of the sum"
