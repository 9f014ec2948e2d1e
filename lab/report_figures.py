"""The figures of a report: learning curves, the confusion matrix, calibration."""

import math

from lab import metrics, report_pictures
from lab.calibration import Bin
from lab.escape import one_line
from lab.page import Markup, element, figure, join
from lab.predictions import Predictions
from lab.svg import Chart, around, svg, text

MOST_POINTS = 200  # epochs that a curve shows
MOST_CELLS = 25  # classes whose confusion matrix has a number in each cell
STRONGEST = 0.55  # opacity of a cell, on which its number can be read
LONGEST = 18  # characters of a class beside the matrix

Row = dict[str, float | None]


def learning_curves(rows: list[Row], best: Row | None) -> list[Markup]:
    """Loss, accuracy and learning rate by epoch, the best epoch marked."""
    shown = metrics.thinned(rows, MOST_POINTS, kept=best)
    mark = best["epoch"] if best else None
    return [
        _curves(shown, "loss", {"train_loss": "training", "val_loss": "validation"}, mark),
        _curves(shown, "validation accuracy", {"val_accuracy": "validation"}, mark),
        _curves(shown, "learning rate", {"lr": "lr"}, mark),
    ]


def _curves(rows: list[Row], title: str, names: dict[str, str], best: float | None) -> Markup:
    series = {
        name: [(row["epoch"], row[key]) for row in rows if row[key] is not None]
        for key, name in names.items()
    }
    series = {name: points for name, points in series.items() if points}
    if not series:
        return element("p", f"No {title} was recorded.", class_="faint")
    every = [point for points in series.values() for point in points]
    is_share = title.endswith("accuracy")
    written = "{:.4g}".format if not is_share else "{:.2%}".format
    edge = "{:.4g}".format if not is_share else "{:.4g}%".format
    scale = 100 if is_share else 1
    low, high = around([scale * y for _, y in every])
    if is_share and all(0 <= y <= 1 for _, y in every):
        low, high = max(0, low), min(100, high)
    chart = Chart(around([x for x, _ in every]), (low, high))
    parts, legend = [], []
    if best is not None and chart.x[0] <= best <= chart.x[1]:
        (x, bottom), (_, top) = chart.at(best, chart.y[0]), chart.at(best, chart.y[1])
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="best"))
        legend.append((f"best epoch: {best:g}", "best"))
    drawn = [
        (name, [(x, scale * y) for x, y in points], f"series-{number}")
        for number, (name, points) in enumerate(series.items(), start=1)
    ]
    for name, points, class_ in drawn:
        parts.append(chart.line(points, class_))
        parts += [
            chart.hint((x, y), f"epoch {x:g}: {name} {written(y / scale)}") for x, y in points
        ]
    legend = [(name, f"{class_} line") for name, _, class_ in drawn if len(drawn) > 1] + legend
    picture = chart.drawn(
        *parts, labels=("epoch", title), formats=("{:g}".format, edge), legend=legend, whole=True
    )
    return figure(picture, title)


def confusion(predictions: Predictions) -> Markup:
    """The matrix as a figure: with numbers if there are few classes, else as an image."""
    if len(predictions.classes) > MOST_CELLS:
        return report_pictures.matrix(predictions.confusion)
    names = [_short(name) for name in predictions.classes]
    cell = 40 if len(names) <= 12 else 30
    left = 26 + 7 * max(map(len, names))
    top, side = left, cell * len(names)
    parts = []
    for row, counts in enumerate(predictions.confusion.tolist()):
        y, total = top + row * cell, sum(counts)
        parts.append(text(names[row], left - 8, y + cell / 2 + 4, "end"))
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            said = f"{predictions.classes[row]} taken for {predictions.classes[column]}: {count}"
            place = (left + column * cell, y, cell)
            parts.append(_cell(place, row == column, count, f"{said} of {total}", share))
    for column, name in enumerate(names):
        x = left + (column + 0.5) * cell + 4
        turned = f"rotate(-90 {x:g} {top - 8})"
        parts.append(text(name, x, top - 8, transform=turned))
    parts.append(text("true class ↓   predicted class →", 4, 14, class_="faint"))
    width = max(left + side + 4, 220)
    drawn = svg(width, top + side + 4, "confusion matrix", *parts, class_="chart wide")
    caption = (
        "Rows: the true class; columns: the predicted class. Blue is right, orange is wrong; the "
        "larger the share of its row, the stronger the colour."
    )
    return figure(drawn, caption)


def _cell(
    place: tuple[float, float, int], is_right: bool, count: int, said: str, share: float
) -> Markup:
    x, y, size = place
    strength = STRONGEST * math.sqrt(share)  # one error in a hundred is seen
    kind = "right" if is_right else "wrong"
    area = {"x": x, "y": y, "width": size - 1, "height": size - 1}
    parts = [
        element("title", said),
        element("rect", class_="empty", **area),
        element("rect", class_=kind, fill_opacity=f"{strength:.2f}", **area) if count else "",
    ]
    number = text(str(count), x + size / 2, y + size / 2 + 4, "middle")
    return element("g", *parts, number if count else "")


def calibration(bins: list[Bin]) -> Markup:
    """The reliability diagram and, below it, how many images are in each bin."""
    used = [each for each in bins if each.count]
    chart = Chart((0, 1), (0, 1), height=320)
    bars = [
        chart.bar(each.low, each.high, each.accuracy, "series-1 area", _said_of(each))
        for each in used
    ]
    diagonal = element("polyline", points=Markup(_diagonal(chart)), class_="best")
    marks = [chart.line([(each.confidence, each.accuracy)], "series-2") for each in used]
    formats = ("{:g}".format, "{:g}".format)
    drawn = chart.drawn(
        *bars, diagonal, *marks, labels=("confidence", "accuracy"), formats=formats,
        legend=[("perfect calibration", "best"), ("mean confidence of a bin", "series-2 dot")],
    )  # fmt: skip
    most = max(each.count for each in bins)
    counts = Chart((0, 1), (0, 1.04 * most), height=160)
    columns = [
        counts.bar(each.low, each.high, each.count, "series-1 area", _said_of(each))
        for each in used
    ]
    lower = counts.drawn(
        *columns, labels=("confidence", "images"), formats=("{:g}".format, "{:g}".format)
    )
    return join(
        figure(drawn, "accuracy of the images in each bin"), figure(lower, "images in each")
    )


def _said_of(each: Bin) -> str:
    return (
        f"confidence {each.low:.2f} to {each.high:.2f}: {each.count} images, "
        f"{each.accuracy:.1%} right, mean confidence {each.confidence:.1%}"
    )


def _diagonal(chart: Chart) -> str:
    return " ".join(f"{x},{y}" for x, y in (chart.at(0, 0), chart.at(1, 1)))


def _short(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
