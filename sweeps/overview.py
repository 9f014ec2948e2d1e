"""results.html: a table that sorts and filters, panels, learning curves, and what did not finish.

The table and the curves are drawn by overview.js from the data in the page, the rest is HTML. Run
folders may be a stranger's: all text goes through `lab.page`, or is set as text by the script.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab import page
from lab.escape import one_line
from lab.page import Markup, element
from sweeps import epochs, figure, panels, runs
from sweeps.table import formatted, short, spread

MOST = 1000  # runs in the page; results.csv has all of them
MOST_LISTED = 200  # of the runs that are running, and of those that did not finish
POINTS = 60_000  # of all curves together: a page of 1,000 runs has 3 MB at most
FEWEST, LONGEST_CURVE = 30, 600  # points of a curve
LONGEST = 160  # characters of a name or a value
RELOAD = 10  # seconds


def content(
    folder: Path,
    found: list[dict[str, Any]],
    varied: list[str],
    rows: list[dict[str, Any]],
    is_live: bool,
) -> str:
    """The page, which lies in `folder`: its links lead from there to the runs. It reloads itself if
    anything `is_live`."""
    shown, shown_rows = chosen(found, varied, rows)
    data = {
        "keys": [brief(key) for key in short(varied)],
        "runs": [_run(folder, run, varied) for run in shown],
        "settings": _settings(shown, varied, shown_rows),
        "reload": RELOAD if is_live else 0,
    }
    data |= _curves(shown)
    body = [
        *_status(found, shown, is_live),
        *_running(folder, found),
        *_table(),
        *panels.panels(rows, varied),
        *_curve_section(data),
        *_unfinished(folder, found),
    ]
    script, style = _beside("overview.js") + _beside("curves.js"), _beside("overview.css")
    title = f"Results of {one_line(folder.absolute().name)}"
    return page.page(title, *body, style=style, script=script, data=data)


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def chosen(
    found: list[dict[str, Any]], varied: list[str], rows: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs and the rows of the page: all, or else what runs and, with all of their runs, the
    settings that are best on validation, of each dataset as many."""
    if len(found) <= MOST:
        return found, rows
    rank: Counter[str] = Counter()
    order = []
    place = varied.index("dataset") if "dataset" in varied else None
    for row in sorted(rows, key=lambda row: -row["val_accuracy"][0]):
        dataset = "" if place is None else row["setting"][place]
        order.append((rank[dataset], len(order), row))
        rank[dataset] += 1
    kept: set[tuple[str, ...]] = set()
    left = MOST
    for _, _, row in sorted(order):
        left -= row["runs"]
        if left < 0:
            break
        kept.add(row["setting"])
    running = [run for run in found if run["status"] == "running"]
    now = set(map(id, running[:MOST_LISTED]))
    shown = [r for r in found if id(r) in now or runs.setting(r, varied) in kept]
    return shown[: MOST + MOST_LISTED], [row for row in rows if row["setting"] in kept]


def brief(text: object) -> str:
    return figure.shortened(formatted(text), LONGEST)


def _run(folder: Path, run: dict[str, Any], varied: list[str]) -> list[Any]:
    """Settings, seed, status, figures, best epoch, name, and the address of its report, if any."""
    report = f"{run['folder']}/report/report.html"
    address = _from(folder, report) if os.path.lexists(report) else ""
    return [
        [brief(value) for value in runs.setting(run, varied)],
        run.get("seed"),
        run["status"],
        *(run.get(key) for key in runs.FIGURES),
        run.get("best_epoch"),
        _name(folder, run),
        quote(address, errors="surrogateescape"),
    ]


def _name(folder: Path, run: dict[str, Any]) -> str:
    """A run as the page calls it: its path from the folder of the page."""
    return figure.shortened(_from(folder, str(run["folder"])), LONGEST)


def _from(folder: Path, path: str) -> str:
    """The path as it is from a folder. `os.path.relpath` takes a fifth of the time of a page."""
    inside = path.removeprefix(f"{folder}/")
    return os.path.relpath(path, folder) if inside == path else inside


def _settings(
    shown: Sequence[dict[str, Any]], varied: list[str], rows: list[dict[str, Any]]
) -> list[list[Any]]:
    """Values, number of finished runs, means as text and as numbers, best, numbers of the runs."""
    members: dict[tuple[str, ...], list[int]] = {}
    for number, run in enumerate(shown):
        members.setdefault(runs.setting(run, varied), []).append(number)
    digits = (100, 2), (100, 2), (1, 1)
    return [
        [
            list(map(brief, row["setting"])),
            row["runs"],
            [spread(row[key], *style) for key, style in zip(runs.FIGURES, digits, strict=True)],
            [row[key][0] for key in runs.FIGURES],
            int(row["best"]),
            members.get(row["setting"], []),
        ]
        for row in rows
    ]


def _curves(shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    most = max(FEWEST, min(LONGEST_CURVE, POINTS // max(1, len(shown))))
    found = [epochs.curves(run["folder"], most) for run in shown]
    return {"metrics": epochs.CURVES, "curves": found, "points": most}


def _status(
    found: list[dict[str, Any]], shown: Sequence[dict[str, Any]], is_live: bool
) -> list[Markup]:
    count = Counter(run["status"] for run in found)
    parts = ", ".join(f"{number} {status}" for status, number in count.most_common())
    written = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"{len(found)} run{'s' * (len(found) != 1)}: {parts}. Written {written}. "
    if len(shown) < len(found):
        text += (
            f"The table and the curves have {len(shown)} of the runs: those of the settings that "
            "are best on validation, and what is running. results.csv has all. "
        )
    if is_live:
        text += (
            f"The page reloads itself every {RELOAD} s and shows changes once it is rewritten, "
            "which python results.py FOLDER --watch does."
        )
    return [element("p", text, id="status")]


def _running(folder: Path, found: list[dict[str, Any]]) -> list[Markup]:
    running = [run for run in found if run["status"] == "running"]
    cells = [
        [_name(folder, run), *epochs.told(epochs.progress(run))] for run in running[:MOST_LISTED]
    ]
    head = ["run", "epoch", "val accuracy %", "time left"]
    return _listed("Running", "running", head, cells, len(running))


def _unfinished(folder: Path, found: list[dict[str, Any]]) -> list[Markup]:
    others = [run for run in found if run["status"] not in ("finished", "running")]
    others.sort(key=lambda run: run["status"] not in ("failed", "damaged"))
    cells = [
        [
            _name(folder, run),
            run["status"],
            epochs.told(epochs.progress(run))[0],
            run.get("reason", ""),
        ]
        for run in others[:MOST_LISTED]
    ]
    head = ["run", "status", "epoch", "reason"]
    return _listed("Not finished", "unfinished", head, cells, len(others))


def _listed(
    title: str, name: str, head: list[Any], cells: list[list[Any]], count: int
) -> list[Markup]:
    if not cells:
        return []
    more = f"and {count - len(cells)} more: results.csv has all." if count > len(cells) else ""
    table = element("div", page.table(head, cells, id=name), class_="tall")
    return [element("h2", f"{title}: {count}"), table, element("p", more, class_="faint")]


def _table() -> list[Markup]:
    example = element("input", id="filter", type="search", placeholder="mlp lr=0.01", size=20)
    note = (
        "Mean ± standard deviation over seeds and folds; ★ is the best on validation, of each "
        "dataset if there are several. A click on a column sorts, a tick shows the curves. Each "
        "word of the filter must occur in a row; key=value must be the value of that column."
    )
    return [
        element("h2", "Table"),
        element("noscript", element("p", "The table and the curves need JavaScript.")),
        element(
            "div",
            element("label", "Rows: ", _select("view", ["settings", "runs"])),
            element("label", "Filter: ", example),
            element("span", id="count", role="status"),
            class_="tools",
        ),
        element("div", element("table", id="table"), class_="scroll tall", tabindex=0),
        element("p", note, class_="faint"),
    ]


def _select(name: str, options: Sequence[str]) -> Markup:
    return element("select", *(element("option", option) for option in options), id=name)


def _curve_section(data: dict[str, Any]) -> list[Markup]:
    longest = max((curve[0] for curve in data["curves"] if curve), default=0)
    note = f"Curves of more than {data['points']} epochs are thinned to as many of them."
    thinned = [element("p", note, class_="faint")] if longest > data["points"] else []
    chart = element("div", id="chart", tabindex=0, role="group", aria_label="Learning curves")
    return [
        element("h2", "Learning curves"),
        element(
            "div",
            element("label", "Figure: ", _select("metric", data["metrics"])),
            element("button", "Clear", id="clear", type="button"),
            element("span", id="drawn", role="status"),
            class_="tools",
        ),
        chart,
        element("div", id="readout", aria_live="polite"),
        element("ul", id="legend"),
        *thinned,
    ]
