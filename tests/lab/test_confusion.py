"""The confusion matrix in the terminal: never wider than it, whatever the classes are."""

import pytest
import torch

from lab.confusion import fitted, summary, width
from lab.predictions import Predictions


def shown(classes: list[str], count: int = 500, right: bool = False) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, len(classes), (count,), generator=generator)
    logits = torch.randn(count, len(classes), generator=generator)
    if right:
        logits[torch.arange(count), labels] = 9
    return summary(Predictions(logits, classes, range(count), labels)).splitlines()


@pytest.mark.parametrize("columns", ["40", "80", "120"])
@pytest.mark.parametrize(
    "classes",
    [
        ["a"], ["no", "yes"], list("0123456789"), [f"a long name of class {i}" for i in range(10)],
        [f"c{i}" for i in range(15)], [f"{i}" * 99 for i in range(100)],
        ["猫" * 9, "犬" * 3, "é" * 30],
    ],
    ids=len,
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal(monkeypatch, classes, columns):
    monkeypatch.setenv("COLUMNS", columns)
    for count in (1, 500, 4000):
        lines = shown(classes, count)
        assert max(map(width, lines)) <= max(80, int(columns))
        if len(classes) <= 10:
            assert len(lines) == 2 + len(classes)
            assert len(set(map(width, lines[1:]))) == 1


def test_many_classes_are_listed_by_their_errors():
    lines = shown([f"class {i}" for i in range(100)])
    assert lines[0].startswith("The confusion matrix of 100 classes does not fit: report=FOLDER")
    shares = [float(line.split("%")[0]) for line in lines[2:12]]
    assert shares == sorted(shares) and "confused most often:" in lines
    assert len(lines) == 24 and " taken for class " in lines[-1]
    assert "confused most often:" not in shown([f"class {i}" for i in range(100)], right=True)


def test_a_class_without_images():
    assert "none" in shown(["a", "b"], 1)[-1] + shown(["a", "b"], 1)[-2]


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [("ab", 4, "  ab"), ("abcdef", 4, "abcd"), ("猫猫", 3, " 猫"), ("e\u0301", 2, " e\u0301")],
)
def test_fitted(text, columns, expected):
    assert fitted(text, columns) == expected
