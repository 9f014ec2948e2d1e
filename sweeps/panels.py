"""The figure of a sweep as HTML: a panel per dataset, a row per setting, values at the points."""

from typing import Any

from lab.page import Markup, element
from sweeps import figure


def panels(rows: list[dict[str, Any]], varied: list[str]) -> list[Markup]:
    if not rows:
        return []
    drawn = figure.panels(rows, varied)
    spread = "mean ± std over seeds where there are several; "
    spread = spread if any(panel["is_spread"] for panel in drawn) else ""
    note = element("p", f"In %, {spread}★ is the best on validation.", class_="faint")
    return [element("h2", "Test accuracy"), note, *map(_panel, drawn)]


def _panel(panel: dict[str, Any]) -> Markup:
    """Places are in percent of the width: text keeps its size on a phone."""
    means, stds = panel["means"], panel["stds"]
    pairs = list(zip(means, stds, strict=True))
    low, high = min(m - s for m, s in pairs), max(m + s for m, s in pairs)
    if low == high:
        low, high = low - 1, high + 1

    def place(value: float) -> float:
        return 4 + 92 * (value - low) / (high - low)

    rows = []
    columns = pairs, panel["labels"], panel["best"], panel["several"]
    for (mean, std), label, is_best, has_several in zip(*columns, strict=True):
        text = f"{mean:.2f}" + f" ± {std:.2f}" * has_several
        x = place(mean)
        anchor = "start" if x < 20 else "end" if x > 80 else "middle"
        ends = {"x1": f"{place(mean - std):.2f}%", "x2": f"{place(mean + std):.2f}%"}
        drawing = [
            element("line", x1="0%", x2="100%", y1=26, y2=26, class_="rule"),
            element("line", **ends, y1=26, y2=26, class_="bar") if std else "",
            element("circle", cx=f"{x:.2f}%", cy=26, r=5, class_="best" if is_best else None),
            element("text", text, x=f"{x:.2f}%", y=15, text_anchor=anchor),
        ]
        star = element("b", " ★", class_="star") if is_best else ""
        rows += [element("div", label, star), element("svg", *drawing, height=36, width="100%")]
    title = element("h3", panel["title"]) if panel["title"] else ""
    keys = element("div", panel["keys"], class_="faint")
    return element("section", title, element("div", keys, element("div"), *rows, class_="panel"))
