"""What came of many runs: a table, a CSV file, a page and a figure, from run folders alone.

python results.py runs/NAME [runs/OTHER …]

At any time, while a sweep is running too. The files are written into the first folder.
"""

import csv
import heapq
import io
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import record
from config.errors import Refusal, errors_as_sentences
from config.schema import NOT_THE_EXPERIMENT

FIGURES = ("val_accuracy", "test_accuracy", "seconds")  # of `result.json`, in the table's order
# The seed is what is averaged over; a recipe is told by what it chooses.
NO_SETTINGS = ("seed", "sweep", *NOT_THE_EXPERIMENT)
MOST_DRAWN = 60  # rows of the figure; more could not be read


def summarise(folders: Sequence[Path]) -> None:
    """Print the table of all runs below `folders`; write results.csv, results.md and results.png.

    Raises Refusal for a folder without a run, OSError, naming the file, where one cannot be
    written; the table is printed before.
    """
    runs = read(folders)
    varied = what_varied(runs)
    rows = grouped(runs, varied)
    text = "\n".join([*table(rows, varied), *unfinished(runs)])
    print(text)
    write_csv(folders[0] / "results.csv", runs, varied)
    record.write_text(folders[0] / "results.md", text + "\n")
    if rows:
        draw(folders[0] / "results.png", rows, varied)


def read(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """A dictionary per run: its `result.json`, its status now, its folder, and its settings.

    Runs of the same config share their settings, however it was asked for.
    """
    paths: dict[Path, Path] = {}  # a folder that is named twice counts once
    for folder in folders:
        below = sorted(path.parent for path in folder.glob("**/result.json"))
        if not below:
            raise Refusal(f"{folder} holds no run: give a folder with run folders below it.")
        paths |= {path.resolve(): path for path in below}
    runs, known = [], {}
    for path in paths.values():
        run = read_one(path)
        config = read_config(path / "config.yaml")
        pairs = (override.lstrip("+~").partition("=") for override in run.get("overrides", ()))
        asked = {key: value for key, _, value in pairs}
        asked |= {key: run[key] for key in ("model", "dataset", "optimizer") if key in run}
        own = {"asked": only_settings(asked), "config": config}
        settings = known.setdefault(json.dumps(config or own, sort_keys=True, default=str), own)
        runs.append(run | {"folder": path} | settings)
    return runs


def read_one(folder: Path) -> dict[str, Any]:
    """The result of a run with its status now, which is "damaged" where nothing can be told."""
    status = {"status": record.status(folder)}
    return status if status["status"] == "damaged" else record.read_result(folder) | status


def read_config(path: Path) -> dict[str, str]:
    """The values of a run's config by their full keys; empty where there is none.

    References stay: configs that say the same are the same.
    """
    try:
        content = yaml.load(path.read_text(), yaml.CSafeLoader) if path.exists() else {}
    except (ValueError, yaml.YAMLError):
        content = {}
    return only_settings(flat(content)) if isinstance(content, dict) else {}


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """`{a: {b: 1}}` as `{"a.b": "1"}`; null is what a key is that is not there."""
    leaves: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            leaves[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return leaves


def only_settings(values: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if key.split(".")[0] not in NO_SETTINGS}


def setting(run: dict[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """A group's option is known from what was asked for, all other values from the config."""
    return tuple(run["config"].get(key, run["asked"].get(key, "")) for key in keys)


def what_varied(runs: list[dict[str, Any]]) -> list[str]:
    """The settings that tell the runs apart: the keys of the table's columns.

    First what was asked for; then, where that leaves two configs alike, as it does after a default
    was changed, what differs between these.
    """
    settled = [run for run in runs if run["config"]] or runs  # without one, it was refused
    varied = differing(settled, "asked")
    while True:
        alike: dict[tuple, list[dict]] = {}
        for run in settled:
            alike.setdefault(setting(run, varied), []).append(run)
        more = next(filter(None, (differing(group, "config") for group in alike.values())), [])
        # Another class has other arguments: its name is enough, unless it leaves configs alike.
        classes = [key for key in more if key.endswith("._target_")]
        if not more:
            return varied
        varied += classes or more


def differing(runs: list[dict[str, Any]], source: str) -> list[str]:
    """The keys of `source`, "asked" or "config", whose values are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run[source])
    return [key for key in keys if len({setting(run, [key]) for run in runs}) > 1]


def grouped(runs: list[dict[str, Any]], varied: list[str]) -> list[dict[str, Any]]:
    """A row per setting: (mean, std over the seeds) of every figure of its finished runs.

    `best` marks the highest mean validation accuracy, on each dataset if they differ.
    """
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        if run["status"] == "finished":
            groups.setdefault(setting(run, varied), []).append(run)
    rows = []
    for values, members in sorted(groups.items()):
        row: dict[str, Any] = {"setting": values, "runs": len(members)}
        for figure in FIGURES:
            figures = [run[figure] for run in members]
            std = statistics.stdev(figures) if len(figures) > 1 else None
            row[figure] = (statistics.mean(figures), std)
        rows.append(row)
    best: dict[str, dict] = {}
    for row in rows:
        dataset = row["setting"][varied.index("dataset")] if "dataset" in varied else ""
        if dataset not in best or row["val_accuracy"][0] > best[dataset]["val_accuracy"][0]:
            best[dataset] = row
    return [row | {"best": row in best.values()} for row in rows]


def table(rows: list[dict[str, Any]], varied: list[str]) -> list[str]:
    """The lines of the table, a row per setting."""
    head = [*short(varied), "runs", "val accuracy %", "test accuracy %", "seconds", ""]
    cells = [
        [
            *row["setting"],
            str(row["runs"]),
            _spread(row["val_accuracy"], 100, 2),
            _spread(row["test_accuracy"], 100, 2),
            _spread(row["seconds"], 1, 1),
            "best" if row["best"] else "",
        ]
        for row in rows
    ]
    return markdown(head, cells)


def markdown(head: list[str], cells: list[list[str]]) -> list[str]:
    """The lines of a Markdown table, aligned so that it reads well on a terminal too."""
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [head, ["-" * width for width in widths], *cells]
    return [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]


def short(keys: list[str]) -> list[str]:
    """`optimizer.lr` as `lr`, unless that could be another one, too."""
    names = [key.removesuffix("._target_").rpartition(".")[2] for key in keys]
    return [name if names.count(name) == 1 else key for name, key in zip(names, keys, strict=True)]


def _spread(figure: tuple[float, float | None], unit: float, digits: int) -> str:
    mean, std = figure
    text = f"{unit * mean:.{digits}f}"
    return text if std is None else f"{text} ± {unit * std:.{digits}f}"


def unfinished(runs: list[dict[str, Any]]) -> list[str]:
    """A line per run that is not finished, with the reason of a failed one."""
    others = [run for run in runs if run["status"] != "finished"]
    parts = [(run["status"], str(run["folder"]), run.get("reason")) for run in others]
    lines = [f"- {': '.join(filter(None, words))}" for words in parts]
    return ["", *lines] if lines else []


def write_csv(path: Path, runs: list[dict[str, Any]], varied: list[str]) -> None:
    """A row per run, also for the unfinished."""
    columns = ["seed", "status", *FIGURES, "best_epoch", "parameters", "folder"]
    rows = [[*setting(run, varied), *(run.get(column, "") for column in columns)] for run in runs]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[*varied, *columns], *rows])
    record.write_text(path, text.getvalue())


def draw(path: Path, rows: list[dict[str, Any]], varied: list[str]) -> None:
    """Test accuracy of every setting, a bar for the standard deviation over its seeds."""
    from matplotlib.figure import Figure

    label = "test accuracy in %, mean ± std over seeds; orange: best on validation"
    if len(rows) > MOST_DRAWN:
        label = f"the {MOST_DRAWN} best of {len(rows)} on validation: {label}"
        rows = heapq.nlargest(MOST_DRAWN, rows, key=lambda row: row["val_accuracy"][0])
    labels = [", ".join(row["setting"]) or "all runs" for row in rows]
    means = [100 * row["test_accuracy"][0] for row in rows]
    stds = [100 * (row["test_accuracy"][1] or 0) for row in rows]
    figure = Figure(figsize=(7, 1 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colors = ["C1" if row["best"] else "C0" for row in rows]
    axes.errorbar(means, range(len(rows)), xerr=stds, fmt="none", ecolor="0.6", capsize=3)
    axes.scatter(means, range(len(rows)), c=colors, zorder=3)
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    with record.replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


if __name__ == "__main__":
    with errors_as_sentences():
        if {"-h", "--help"} & set(sys.argv):
            print(__doc__)
        elif len(sys.argv) < 2:
            sys.exit(__doc__)
        else:
            summarise([Path(name) for name in sys.argv[1:]])
