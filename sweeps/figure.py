"""What the figure of a sweep shows: a panel per dataset, a row per setting."""

import heapq
from typing import Any

from lab.escape import one_line
from sweeps.table import formatted, short

MOST_DRAWN = 60  # rows of the figure; more would not be legible
LONGEST = 44  # characters of a label


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
        "several": [row["test_accuracy"][1] is not None for row in shown],
        "is_spread": any(row["test_accuracy"][1] is not None for row in shown),
    }


def shortened(text: object, most: int = LONGEST) -> str:
    """One line of at most `most` characters, without the middle of a longer one."""
    text, half = one_line(text), most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[1 - half :]}"
