"""What came of many runs: a table, a CSV file, a page and a figure, from run folders alone.

python results.py runs/NAME [runs/OTHER …]

At any time, while a sweep is running too. The files are written into the first folder.
"""

import csv
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import record
from config.errors import Refusal, errors_as_sentences
from config.schema import NOT_THE_EXPERIMENT

FIGURES = ("val_accuracy", "test_accuracy", "seconds")  # of `result.json`, in the table's order


def summarise(folders: Sequence[Path]) -> None:
    """Print the table of all runs below `folders`; write results.csv, results.md and results.png.

    Raises Refusal where there is no run.
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
    """A dictionary per run: its `result.json`, its status now, its folder, and its overrides."""
    runs = []
    for path in sorted(path for folder in folders for path in folder.glob("**/result.json")):
        run = record.read_result(path.parent)
        pairs = (override.lstrip("+~").partition("=") for override in run.get("overrides", ()))
        asked = {key: value for key, _, value in pairs}
        chosen = {key: run[key] for key in ("model", "dataset", "optimizer") if key in run}
        now = {"status": record.status(path.parent), "folder": path.parent, "asked": asked | chosen}
        runs.append(run | now)
    if not runs:
        raise Refusal(f"{folders[0]} holds no run: give a folder with run folders below it.")
    return runs


def what_varied(runs: list[dict[str, Any]]) -> list[str]:
    """The settings that were not the same in all runs; the seed is what is averaged over."""
    ignored = ("seed", *NOT_THE_EXPERIMENT)
    keys = dict.fromkeys(key for run in runs for key in run["asked"])
    values = {key: {str(run["asked"].get(key, "")) for run in runs} for key in keys}
    return [key for key in keys if len(values[key]) > 1 and key.split(".")[0] not in ignored]


def grouped(runs: list[dict[str, Any]], varied: list[str]) -> list[dict[str, Any]]:
    """A row per setting: (mean, std over the seeds) of every figure of its finished runs.

    `best` marks the highest mean validation accuracy, on each dataset if they differ.
    """
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        if run["status"] == "finished":
            setting = tuple(str(run["asked"].get(key, "")) for key in varied)
            groups.setdefault(setting, []).append(run)
    rows = []
    for setting, members in sorted(groups.items()):
        row: dict[str, Any] = {"setting": setting, "runs": len(members)}
        for figure in FIGURES:
            values = [run[figure] for run in members]
            std = statistics.stdev(values) if len(values) > 1 else None
            row[figure] = (statistics.mean(values), std)
        rows.append(row)
    best: dict[str, dict] = {}
    for row in rows:
        dataset = row["setting"][varied.index("dataset")] if "dataset" in varied else ""
        if dataset not in best or row["val_accuracy"] > best[dataset]["val_accuracy"]:
            best[dataset] = row
    return [row | {"best": row in best.values()} for row in rows]


def table(rows: list[dict[str, Any]], varied: list[str]) -> list[str]:
    """The lines of the table, a row per setting."""
    head = [*varied, "runs", "val accuracy %", "test accuracy %", "seconds", ""]
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


def _spread(figure: tuple[float, float | None], unit: float, digits: int) -> str:
    mean, std = figure
    text = f"{unit * mean:.{digits}f}"
    return text if std is None else f"{text} ± {unit * std:.{digits}f}"


def unfinished(runs: list[dict[str, Any]]) -> list[str]:
    """A line per run that is not finished, with the reason of a failed one."""
    others = [run for run in runs if run["status"] != "finished"]
    lines = [
        f"- {run['status']}: {run['folder']} {run.get('reason', '')}".rstrip() for run in others
    ]
    return ["", *lines] if lines else []


def write_csv(path: Path, runs: list[dict[str, Any]], varied: list[str]) -> None:
    """A row per run, also for the unfinished."""
    columns = [*varied, "seed", "status", *FIGURES, "best_epoch", "parameters", "folder"]
    rows = [[(run["asked"] | run).get(column, "") for column in columns] for run in runs]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def draw(path: Path, rows: list[dict[str, Any]], varied: list[str]) -> None:
    """Test accuracy of every setting, a bar for the standard deviation over its seeds."""
    from matplotlib.figure import Figure

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
    axes.set_xlabel("test accuracy in %, mean ± std over seeds; orange: best on validation")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    with errors_as_sentences():
        if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
            sys.exit(__doc__)
        summarise([Path(name) for name in sys.argv[1:]])
