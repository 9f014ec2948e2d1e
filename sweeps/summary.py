"""Many runs summarised: a table, a CSV file and a figure, made from run folders alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab import files, record
from lab.escape import in_markdown, one_line
from sweeps import figure, live, overview, runs
from sweeps.drawing import Draw, drawing_here
from sweeps.table import formatted, markdown, short, spread


def summarise(folders: Sequence[Path], draw: Draw = drawing_here) -> None:
    """Print the table of all runs below `folders`; write results.csv, .md, .html and .png into the
    first.

    Raises Refusal for a folder without a run and OSError, naming the file, if one cannot be
    written; the table is printed regardless.
    """
    found = runs.read(folders)
    varied = runs.what_varied(found)
    rows = runs.grouped(found, varied)
    drawn = draw(figure.panels(rows, varied)) if rows else None
    text, marked_up = (
        "\n".join([*table(rows, varied, escape), *unfinished(found, escape)])
        for escape in (one_line, in_markdown)
    )
    names = ["results.csv", "results.md", "results.html"]
    try:
        files.write_csv(folders[0] / "results.csv", csv_rows(found, varied))
        files.write_text(folders[0] / "results.md", marked_up + "\n")
        content = overview.content(folders[0], found, varied, rows, live.is_live(folders, found))
        files.write_text(folders[0] / "results.html", content)
        if drawn:
            files.write_bytes(folders[0] / "results.png", drawn())
            names.append("results.png")
    finally:
        print(text)
    print(f"\nWritten to {record.shown(folders[0].absolute())}: {', '.join(names)}")


def table(rows: list[dict[str, Any]], varied: list[str], escape: Callable[[str], str]) -> list[str]:
    """The lines of the table, a row per setting."""
    head = [*short(varied), "runs", "val accuracy %", "test accuracy %", "seconds", ""]
    cells = [
        [
            *map(formatted, row["setting"]),
            str(row["runs"]),
            spread(row["val_accuracy"], 100, 2),
            spread(row["test_accuracy"], 100, 2),
            spread(row["seconds"], 1, 1),
            "best" if row["best"] else "",
        ]
        for row in rows
    ]
    return markdown(head, cells, escape)


def unfinished(found: list[dict[str, Any]], escape: Callable[[str], str]) -> list[str]:
    """A line per run that is not finished, with the reason if it failed."""
    others = [run for run in found if run["status"] != "finished"]
    parts = [(run["status"], str(run["folder"]), run.get("reason")) for run in others]
    lines = [f"- {': '.join(map(escape, filter(None, words)))}" for words in parts]
    return ["", *lines] if lines else []


def csv_rows(found: list[dict[str, Any]], varied: list[str]) -> list[list[Any]]:
    """A row per run, unfinished ones included, with all digits."""
    columns = ["seed", "status", *runs.FIGURES, "best_epoch", "parameters", "folder"]
    rows = [
        [*runs.setting(run, varied), *(run.get(column, "") for column in columns)] for run in found
    ]
    return [[*varied, *columns], *rows]
