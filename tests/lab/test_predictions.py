"""Predictions: figures as training computes them, and a file that says the same."""

import csv

import pytest
import torch

from data import ImageSet
from lab.predictions import Predictions


def made(classes: list[str], count: int = 3000, names=None, labels: bool = True) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(count, len(classes), generator=generator)
    known = torch.randint(0, len(classes), (count,), generator=generator) if labels else None
    return Predictions(logits, classes, names or range(count), known)


def read(path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_figures_are_those_of_training(monkeypatch):
    import training

    found = made(list("abc"))
    image_set = ImageSet(torch.zeros(3000, 1, 1, 1), found.labels, (0.0,), (1.0,))
    monkeypatch.setattr(training, "predict", lambda *_: found.logits)
    assert training.evaluate(torch.nn.Identity(), image_set, None, None) == {
        "loss": found.loss, "accuracy": found.accuracy
    }  # fmt: skip


def test_the_file_gives_the_figures_again(tmp_path):
    found = made(list("abc"))
    found.write(tmp_path / "new/p.csv")
    head, *rows = read(tmp_path / "new/p.csv")
    assert head == ["index", "label", "prediction", "p(a)", "p(b)", "p(c)"]
    assert [row[0] for row in rows] == list(map(str, range(3000)))
    assert sum(row[1] == row[2] for row in rows) / 3000 == found.accuracy
    own = torch.tensor([float(row[3 + "abc".index(row[1])]) for row in rows]).double()
    assert -own.log().mean().item() == pytest.approx(found.loss, rel=1e-6)


def test_text_in_the_file_is_no_formula_and_no_markup_of_csv(tmp_path):
    classes = ["=1+1", 'a"b,c', "@x\n", "1e3", "ü"]
    names = ["=cmd.png", "a,b.png", "-x\x1b.png", "\udcff.png"]
    made(classes, 4, names, labels=False).write(tmp_path / "p.csv")
    head, *rows = [
        line for line in csv.reader((tmp_path / "p.csv").open(newline="", errors="replace"))
    ]
    assert head[:4] == ["file", "prediction", "p(=1+1)", 'p(a"b,c)'] and len(head) == 7
    assert [row[0] for row in rows][:3] == ["'=cmd.png", "a,b.png", "'-x\\x1b.png"]
    assert {row[1] for row in rows} <= {"'=1+1", 'a"b,c', "'@x\n", "1e3", "ü"}


def test_extreme_logits_are_numbers(tmp_path):
    logits = torch.tensor([[1e4, -1e4], [0.0, -300.0]])
    Predictions(logits, ["a", "b"], range(2), torch.tensor([0, 0])).write(tmp_path / "p.csv")
    _, *rows = read(tmp_path / "p.csv")
    assert [row[3:] for row in rows] == [["1", "0"], ["1", "5.14820022e-131"]]


def test_what_is_confused_most():
    logits = torch.eye(3)[[0, 1, 1, 2, 2, 2]]
    found = Predictions(logits, list("abc"), range(6), torch.tensor([0, 0, 0, 1, 2, 0]))
    assert found.confusion.tolist() == [[1, 2, 1], [0, 0, 1], [0, 0, 1]]
    assert found.confused(2) == [(2, "a", "b"), (1, "a", "c")]
    assert len(found.confused(99)) == 3
    right = Predictions(logits, list("abc"), range(6), logits.argmax(1))
    assert right.confused(5) == []


def test_ranked():
    found = Predictions(torch.tensor([[0.0, 2.0, 1.0]]), list("abc"), ["x.png"])
    assert [name for name, _ in found.ranked(0)] == ["b", "c", "a"]
