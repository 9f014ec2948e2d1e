"""`results.py FOLDER --watch`: what is running, live, and the page rewritten meanwhile."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lab import files
from lab.errors import Refusal
from lab.escape import one_line
from sweeps import epochs, live, overview, runs
from sweeps.figure import shortened

PAUSE = 2.0  # seconds between two looks, or ten times what a look takes
MOST_BARS = 12  # jobs that are shown; more do not fit into a terminal of 24 lines
LONGEST = 36  # characters of a name: with the rest, a line has 80
BAR = "{desc:36} {n_fmt:>4}/{total_fmt:<4} {bar} {unit}"


def watch(folders: Sequence[Path]) -> None:
    """Show the runs below `folders` until none runs and no command of a sweep does.

    A terminal has a bar per running job, anything else gets a line when something changes.
    """
    with ExitStack() as stack:
        view: Lines = stack.enter_context(Bars()) if sys.stdout.isatty() else Lines()
        written = -overview.RELOAD
        while True:
            began = time.monotonic()
            found, is_live = look(folders)
            view.show(found, total_of(folders, found))
            if not is_live:
                return
            if found and time.monotonic() - written >= overview.RELOAD:
                written = time.monotonic()
                write_page(folders[0], found, view)
            time.sleep(max(PAUSE, 10 * (time.monotonic() - began)))


def look(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], bool]:
    """The runs, and whether anything is going on. Raises Refusal if there is neither."""
    swept = any(map(live.is_swept, folders))
    try:
        found = runs.read(folders)
    except Refusal:
        if not swept:
            raise
        return [], True
    return found, swept or live.is_live(folders, found)


def total_of(folders: Sequence[Path], found: list[dict[str, Any]]) -> int:
    """The number of jobs: of the runs that are there, or of those that a sweep is going to have."""
    return sum(
        max(count, live.expected(place) if live.is_swept(place) else 0)
        for place, count in live.places(folders, found).items()
    )


def write_page(folder: Path, found: list[dict[str, Any]], view: "Lines") -> None:
    varied = runs.what_varied(found)
    try:
        content = overview.content(folder, found, varied, runs.grouped(found, varied), is_live=True)
        files.write_text(folder / "results.html", content)
    except OSError as error:  # in somebody else's folder, for instance: watching it is still good
        view.say_once(str(error))


class Lines:
    """Prints each job that ends, and the number of jobs in each state when it changes."""

    def __init__(self) -> None:
        self.before: dict[Path, str] = {}
        self.said: set[str] = set()
        self.is_first = True

    def show(self, found: list[dict[str, Any]], total: int) -> None:
        for line in self.news(found):
            self.say(line)
        self.show_state(found, total)
        self.before = {run["folder"]: run["status"] for run in found}
        self.is_first = False

    def news(self, found: list[dict[str, Any]]) -> Iterator[str]:
        for run in found:
            status = run["status"]
            if self.is_first or status in ("running", self.before.get(run["folder"])):
                continue
            accuracy = f"{run['val_accuracy']:.2%} on validation" if status == "finished" else ""
            details = filter(None, [accuracy, one_line(run.get("reason", ""))])
            yield ": ".join([status, one_line(run["folder"].name), *details])

    def show_state(self, found: list[dict[str, Any]], total: int) -> None:
        self.say_once(f"{time.strftime('%H:%M')} {state(found, total)}", state(found, total))

    def say(self, line: str) -> None:
        print(line, flush=True)

    def say_once(self, line: str, what: str | None = None) -> None:
        if (what or line) not in self.said:
            self.said.add(what or line)
            self.say(line)


def state(found: list[dict[str, Any]], total: int) -> str:
    """`3 of 8 jobs finished, 2 running, 1 failed`."""
    count = Counter(run["status"] for run in found)
    others = [f"{number} {status}" for status, number in count.items() if status != "finished"]
    return ", ".join([f"{count['finished']} of {total} jobs finished", *others])


class Bars(Lines):
    """A bar for all jobs, and one for each that is running, which tqdm keeps at the bottom."""

    def __enter__(self) -> "Bars":
        self.bars: dict[Path | None, tqdm] = {}
        return self

    def __exit__(self, *_: object) -> None:
        for bar in reversed(list(self.bars.values())):
            bar.close()

    def say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)

    def show_state(self, found: list[dict[str, Any]], total: int) -> None:
        running = [run for run in found if run["status"] == "running"]
        shown = {run["folder"]: run for run in running[:MOST_BARS]}
        for folder in [folder for folder in self.bars if folder and folder not in shown]:
            self.bars.pop(folder).close()
        ended = sum(run["status"] == "finished" for run in found)
        self.update(None, "all jobs", ended, total, state(found, total).partition(", ")[2])
        for folder, run in shown.items():
            now = epochs.progress(run)
            _, accuracy, left = epochs.told(now)
            parts = [accuracy and f"{accuracy}%", f"{left} left" if "left" in now else ""]
            note = ", ".join(filter(None, parts))
            name = shortened(folder.name, LONGEST)
            self.update(folder, name, now["epoch"], now.get("epochs", 0), note)

    def update(self, key: Path | None, name: str, done: int, total: int, note: str) -> None:
        if key not in self.bars:
            self.bars[key] = tqdm(
                desc=name, total=total, initial=done, unit=note, bar_format=BAR,
                file=sys.stdout, leave=False, dynamic_ncols=True,
            )  # fmt: skip
        bar = self.bars[key]
        bar.total, bar.n, bar.unit = total, done, note
        bar.refresh()
