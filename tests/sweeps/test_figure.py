"""What the figure of a sweep shows."""

import pytest

from sweeps import figure, panels


def row(*setting: str, test=0.9, std=None, val=0.9, best=False) -> dict:
    figures = {"val_accuracy": (val, std), "test_accuracy": (test, std), "seconds": (1.0, None)}
    return {"setting": setting, "runs": 1, "best": best} | figures


def test_a_panel_per_dataset():
    rows = [row(model, dataset) for model in ("cnn", "mlp") for dataset in ("fashion", "mnist")]
    panels = figure.panels(rows, ["model", "dataset"])
    assert [panel["title"] for panel in panels] == ["fashion", "mnist"]
    assert [panel["labels"] for panel in panels] == [["cnn", "mlp"]] * 2
    assert {panel["keys"] for panel in panels} == {"model"}


def test_sixty_rows_at_most():
    rows = [row(str(n), d, val=n / 1e3) for n in range(50) for d in ("a", "b", "c")]
    panels = figure.panels(rows, ["lr", "dataset"])
    assert [len(panel["labels"]) for panel in panels] == [20, 20, 20]
    assert panels[0]["title"] == "a: the 20 best of 50 on validation"
    assert panels[0]["labels"][:2] == ["49", "48"]
    many = figure.panels([row("1", str(n)) for n in range(500)], ["lr", "dataset"])
    assert sum(len(panel["labels"]) for panel in many) == 60


def test_one_seed_has_no_spread():
    (one,) = figure.panels([row("a"), row("b")], ["model"])
    (two,) = figure.panels([row("a", std=0.01), row("b")], ["model"])
    assert not one["is_spread"] and two["is_spread"]
    assert two["stds"] == [1.0, 0.0] and two["several"] == [True, False]


def test_seeds_that_agree_have_a_spread_of_zero():
    rows = [row("a", std=0.0), row("b")]
    shown = "".join(panels.panels(rows, ["model"]))
    assert shown.count(">90.00 ± 0.00<") == 1 and shown.count(">90.00<") == 1


def test_the_best_of_one_row_is_not_marked():
    (panel,) = figure.panels([row(best=True)], [])
    assert panel["best"] == [False] and panel["labels"] == ["all runs"]


@pytest.mark.parametrize("text", ["short", "x" * 44, "a" * 30 + "b" * 30, "line\nbreak\x1b"])
def test_labels_are_short_and_keep_both_ends(text):
    shown = figure.shortened(text)
    assert len(shown) <= figure.LONGEST and "\n" not in shown and "\x1b" not in shown
    assert shown[0] == text[0] and ("…" in shown) == (len(text) > figure.LONGEST)
