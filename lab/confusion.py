"""The confusion matrix in the terminal: as it is where it fits, else what is confused most."""

import shutil
import unicodedata

from lab.escape import one_line
from lab.predictions import Predictions

NARROWEST, WIDEST = 3, 12  # columns of the terminal that a class takes
SHORTEST = 10  # columns for the names before the rows, if they need as many
LISTED = 10  # classes and pairs of classes, where the matrix does not fit


def summary(predictions: Predictions) -> str:
    """The accuracy of each class and the confusion matrix, in lines for the terminal; where there
    are more classes than fit into a line, those with the most errors."""
    columns = max(80, shutil.get_terminal_size().columns)
    counts, names = predictions.confusion.tolist(), list(map(one_line, predictions.classes))
    fitting = _widths(names, max(map(max, counts)), columns)
    return _matrix(names, counts, *fitting) if fitting else _worst(predictions, names, columns)


def _widths(names: list[str], most: int, columns: int) -> tuple[int, int] | None:
    """The width of the names before the rows, and of a column; None if they do not fit."""
    longest = max(map(width, names))
    for cell in range(min(max(longest, 5), WIDEST), max(NARROWEST, len(str(most))) - 1, -1):
        left = columns - len(" 100.00% ") - len(names) * (cell + 1)
        if left >= min(longest, SHORTEST):
            return min(longest, left), cell
    return None


def _matrix(names: list[str], counts: list[list[int]], left: int, cell: int) -> str:
    head = " ".join(fitted(name, cell) for name in names)
    lines = ["rows: the true class, with its accuracy; columns: the predicted class"]
    lines += [f"{'':{left}}          {head}"]
    for index, (name, row) in enumerate(zip(names, counts, strict=True)):
        shown = " ".join(f"{count:{cell}d}" for count in row)
        lines.append(f"{fitted(name, left)} {_share(row[index], sum(row))}  {shown}")
    return "\n".join(lines)


def _worst(predictions: Predictions, names: list[str], columns: int) -> str:
    counts, longest = predictions.confusion, (columns - 20) // 2
    names = [fitted(name, min(width(name), longest)) for name in names]
    rows = zip(names, counts.diag().tolist(), counts.sum(1).tolist(), strict=True)
    ranked = sorted((right / total, name, right, total) for name, right, total in rows if total)
    lines = [
        f"The confusion matrix of {len(counts)} classes does not fit: report=FOLDER shows it.",
        "classes with the most errors:",
    ]
    for _, name, right, total in ranked[:LISTED]:
        lines.append(f"{_share(right, total)}  {name} ({right} of {total})")
    if pairs := predictions.confused(LISTED):
        short = dict(zip(predictions.classes, names, strict=True))
        lines += ["", "confused most often:"]
        lines += [f"{n:7d}  {short[name]} taken for {short[other]}" for n, name, other in pairs]
    return "\n".join(lines)


def _share(part: int, total: int) -> str:
    return f"{part / total:7.2%}" if total else "   none"


def width(text: str) -> int:
    """The columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def fitted(text: str, columns: int) -> str:
    """The text in that many columns: cut off if it is longer, else aligned to the right."""
    shown, left = "", columns
    for char in text:
        if width(char) > left:
            break
        shown, left = shown + char, left - width(char)
    return " " * left + shown
