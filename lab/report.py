"""The report of a run: a page that shows what it learned, and its predictions as a file."""

import json
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import precision_recall_fscore_support

from lab import calibration, files, metrics, provenance, reading, record, report_figures, schema
from lab.page import Markup, element, join, page, table
from lab.predictions import Evaluated, Predictions
from lab.report_pictures import mistakes

PAGE, PREDICTIONS = "report.html", "predictions.csv"
LISTED = 12  # pairs of classes, and classes where there are many
MANY = 40  # classes, whose table is folded
MOST_EPOCHS, MOST_KEYS = 300, 300  # rows of a table
GLANCE = (
    *("model._target_", "optimizer._target_", "optimizer.lr", "optimizer.weight_decay"),
    *("scheduler._target_", "epochs", "batch_size", "seed", "label_smoothing", "ema", "limit"),
)
PLAIN = re.compile(r"^([\w.+/]+)='([\w./-]+)'$")  # quoted for Hydra, without need
# Of `result.json`, in the table of what the result comes from.
ORIGIN = {
    "commit": "commit", "dirty": "uncommitted changes", "changes": "changes", "git_error": "git",
    "started": "started", "device": "device", "device_name": "machine", "threads": "threads",
    "precision": "precision", "data_sha256": "SHA-256 of the images",
}  # fmt: skip


def write(out: Path, folder: Path, tested: Evaluated) -> Path:
    """Write the page and the predictions of the run in `folder` to `out`. Returns the page's path.

    Raises RunFolderError for a folder with files that no run writes.
    """
    config, result = record.read_config(folder), record.read_result(folder)
    try:
        rows, complaint = metrics.read(folder), ""
    except reading.RunFolderError as error:
        rows, complaint = [], str(error)
    best = _best(rows, result)
    parts = [
        _result(folder, result, tested, best),
        _config(result, schema.flat(config)),
        _curves(rows, best, complaint),
        _confusion(tested.predictions),
        _classes(tested.predictions),
        _section("Worst mistakes", mistakes(tested.predictions, tested.image_set)),
        _calibration(tested.predictions),
        _origin(folder, result),
    ]
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    tested.predictions.write(out / PREDICTIONS)
    files.write_text(out / PAGE, page(_title(result, tested), *parts, style=style))
    return out / PAGE


def _title(result: dict[str, Any], tested: Evaluated) -> str:
    trained = result.get("dataset", "?")
    where = (
        f"on {trained}" if tested.is_own else f"trained on {trained}, tested on {tested.dataset}"
    )
    return f"{result.get('model', '?')} {where}: {tested.predictions.accuracy:.2%} test accuracy"


def _best(rows: list[dict], result: dict[str, Any]) -> dict | None:
    """The row of the epoch whose weights are tested: of an unfinished run, as it chooses them."""
    for row in rows if result["status"] == "finished" else []:
        if row["epoch"] == result.get("best_epoch"):
            return row
    measured = [row for row in reversed(rows) if row["val_accuracy"] is not None]
    return max(measured, key=lambda row: row["val_accuracy"], default=None)


def _section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title, id=_id(title)), *content)


def _id(title: str) -> str:
    return title.lower().replace(" ", "-")


def _said(*words: object, class_: str | None = None) -> Markup:
    return element("p", *words, class_=class_)


def _result(folder: Path, result: dict, tested: Evaluated, best: dict | None) -> Markup:
    predictions = tested.predictions
    cards = {
        "test accuracy": f"{predictions.accuracy:.2%}",
        "test images": f"{len(predictions):,}",
        "wrong": f"{int((predictions.predicted != predictions.labels).sum()):,}",
        "test loss": f"{predictions.loss:.4f}",
    }
    if best and best["val_accuracy"] is not None:
        cards["val accuracy"] = f"{best['val_accuracy']:.2%}"
        cards["best epoch"] = f"{best['epoch']:g}"
    if "parameters" in result:
        cards["parameters"] = f"{result['parameters']:,}"
    if "seconds" in result:
        cards["training time"] = f"{result['seconds']:,} s"
    shown = [
        element("div", element("dt", name), element("dd", value)) for name, value in cards.items()
    ]
    computed = {"test_accuracy": predictions.accuracy, "test_loss": predictions.loss}
    compared = [
        ["recorded", *(repr(result[key]) if key in result else "–" for key in computed)],
        ["computed", *map(repr, computed.values())],
    ]
    status = record.status(folder)
    reason = f": {result['reason']}" if result.get("reason") else ""
    notes = [_said(element("code", str(folder)), f" – {status}{reason}")]
    if status != "finished":
        notes.append(
            _said("The run is not finished: these are the best weights so far.", class_="bad")
        )
    if tested.is_own:
        notes.append(table(["", *computed], compared))
        if any(result.get(key, value) != value for key, value in computed.items()):
            notes.append(_said(DIFFERENT, class_="faint"))
    else:
        notes.append(_said(
            f"These are the test images of {tested.dataset}, not those that the run was tested on.",
        ))  # fmt: skip
    link = element("a", PREDICTIONS, href=PREDICTIONS)
    notes.append(_said("All predictions, with a probability per class: ", link))
    links = [element("a", title, href=f"#{_id(title)}") for title in SECTIONS]
    return join(element("dl", *shown, class_="cards"), element("nav", *links), *notes)


SECTIONS = (
    *("Config", "Learning curves", "Confusion matrix", "Classes", "Worst mistakes"),
    *("Calibration", "Provenance"),
)
DIFFERENT = (
    "The figures differ: another machine, number of threads or package version changes the last "
    "digits; weights of another epoch give different predictions."
)


def _config(result: dict[str, Any], values: dict[str, str]) -> Markup:
    rows = [[key, values[key]] for key in GLANCE if key in values]
    every = [[key, value] for key, value in list(values.items())[:MOST_KEYS]]
    words = result.get("overrides", [])[:MOST_KEYS]
    asked = shlex.join(PLAIN.sub(r"\1=\2", word) for word in words)
    return _section(
        "Config",
        _said("Overrides: ", element("code", asked)) if asked else _said("No overrides."),
        table(["key", "value"], rows, class_="pairs"),
        _folded(
            "All values" if len(every) == len(values) else f"{len(every)} of {len(values)} values",
            table(["key", "value"], every, class_="pairs"),
        ),
    )


def _folded(title: str, content: Markup) -> Markup:
    return element("details", element("summary", title), content)


def _curves(rows: list[dict], best: dict | None, complaint: str) -> Markup:
    title = "Learning curves"
    if not rows:
        return _section(title, _said(complaint or "No epoch has been recorded.", class_="faint"))
    head = ["epoch", *metrics.COLUMNS]
    shown = metrics.thinned(rows, MOST_EPOCHS, kept=best)
    cells = [
        [f"{row['epoch']:g}"] + ["–" if row[key] is None else f"{row[key]:.5g}" for key in head[1:]]
        for row in shown
    ]
    name = "All epochs" if shown == rows else f"{len(shown)} of {len(rows)} epochs"
    figures = element("div", *report_figures.learning_curves(rows, best), class_="figures")
    return _section(title, figures, _folded(name, table(head, cells)))


def _confusion(predictions: Predictions) -> Markup:
    pairs = [[name, other, str(n)] for n, name, other in predictions.confused(LISTED)]
    worst = table(["true class", "taken for", "images"], pairs) if pairs else _said("No mistakes.")
    figure = report_figures.confusion(predictions)
    listed = element("div", element("h3", "Confused most often"), worst)
    return _section("Confusion matrix", element("div", figure, listed, class_="figures"))


def _classes(predictions: Predictions) -> Markup:
    """Precision, recall and F1 of each class; a dash where one is not defined."""
    numbers = range(len(predictions.classes))
    pair = predictions.labels.numpy(), predictions.predicted.numpy()
    figures = precision_recall_fscore_support(*pair, labels=numbers, zero_division=float("nan"))
    rows = [
        [name, str(count), *("–" if value != value else f"{value:.4f}" for value in scores)]
        for name, *scores, count in zip(predictions.classes, *figures, strict=True)
    ]
    for average in ("macro", "weighted"):
        options = {"labels": numbers, "average": average, "zero_division": 0.0}
        *scores, _ = precision_recall_fscore_support(*pair, **options)
        rows.append([f"{average} average", str(len(predictions)), *(f"{s:.4f}" for s in scores)])
    head = ["class", "images", "precision", "recall", "F1"]
    content = [table(head, rows)]
    if len(numbers) > MANY:
        ranked = sorted(rows[:-2], key=lambda row: float(row[4].replace("–", "inf")))
        content = [
            _said(f"The {LISTED} classes with the lowest F1, and the averages."),
            table(head, ranked[:LISTED] + rows[-2:]),
            _folded(f"All {len(numbers)} classes", content[0]),
        ]
    content.append(_said(
        "Averages take a figure that is not defined (–) as 0. Macro: all classes count the same; "
        "weighted: by their images.", class_="faint",
    ))  # fmt: skip
    return _section("Classes", *content)


def _calibration(predictions: Predictions) -> Markup:
    bins = calibration.reliability(predictions.probabilities, predictions.labels)
    error = calibration.expected_error(bins)
    paper = element("a", "Guo et al. 2017", href="https://arxiv.org/abs/1706.04599")
    said = _said(
        element("b", f"ECE = {error:.4f}"),
        f", the expected calibration error: Σ |B|/n · |accuracy(B) − confidence(B)| over "
        f"{len(bins)} bins B of equal width, where the confidence is the probability of the "
        "predicted class (", paper, "). A well-calibrated model is on the dashed line; an "
        "overconfident one is below it.",
    )  # fmt: skip
    figures = element("div", report_figures.calibration(bins), class_="figures")
    return _section("Calibration", said, figures)


def _origin(folder: Path, result: dict[str, Any]) -> Markup:
    rows = [["command", shlex.join(result.get("command", []))]]
    rows += [
        [name, _written(result[key])] for key, name in ORIGIN.items() if result.get(key) is not None
    ]
    versions = list(result.get("versions", {}).items())
    rows += [[name, version] for name, version in versions[:MOST_KEYS]]
    if earlier := result.get("earlier"):
        rows.append(["resumed", f"{len(earlier)} times: earlier parts are in result.json"])
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    by = provenance.git("rev-parse", "HEAD") or "unknown"
    rows.append(["this report", f"{now}, by commit {by}, torch {torch.__version__}"])
    return _section("Provenance", table(["fact", "value"], rows, class_="pairs"))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
