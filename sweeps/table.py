"""Tables for the terminal and for Markdown: how names, values and means are written."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from lab.escape import one_line


def markdown(
    head: list[str], cells: list[list[str]], escape: Callable[[str], str] = one_line
) -> list[str]:
    """The lines of a Markdown table, aligned so that it is readable in a terminal, too.

    `escape` is applied to each cell: `in_markdown` for a file, in which markup would be rendered.
    """
    head, *cells = [list(map(escape, line)) for line in (head, *cells)]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [head, ["-" * width for width in widths], *cells]
    return [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]


def short(keys: Sequence[str]) -> list[str]:
    """`optimizer.lr` as `lr`, unless another key has the same last part."""
    names = [key.removesuffix("._target_").rpartition(".")[2] for key in keys]
    return [name if names.count(name) == 1 else key for name, key in zip(names, keys, strict=True)]


def number(value: Any) -> float | None:
    """The number that a value, perhaps a string of a config, stands for; None for anything else."""
    with suppress(TypeError, ValueError, OverflowError):
        return None if isinstance(value, bool) else float(value)
    return None


def formatted(value: Any) -> str:
    """A number with four significant digits, a whole one in full; anything else as it is."""
    found = number(value)
    if found is None:
        return str(value)
    return f"{found:.0f}" if found.is_integer() and abs(found) < 1e15 else f"{found:.4g}"


def sort_key(value: str) -> tuple[int, list[float], str]:
    """Sorts numbers by value, then lists like [64, 64], then words."""
    found = [number(part) for part in value.strip("[]").split(",")]
    if None in found:
        return 2, [], value
    return int(value.startswith("[")), found, ""


def spread(figure: tuple[float, float | None], unit: float, digits: int) -> str:
    """A mean with its standard deviation, if there is one."""
    mean, std = figure
    text = f"{unit * mean:.{digits}f}"
    return text if std is None else f"{text} ± {unit * std:.{digits}f}"
