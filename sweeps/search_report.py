"""The report of a search: its best trial or Pareto front, a table of all trials, figures."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab import files, record
from lab.escape import in_markdown, one_line
from sweeps import search_figures
from sweeps.space import Space, overrides
from sweeps.table import formatted, markdown
from sweeps.trial import Trial, best_of, score

LOST = "its process ended without a word: it was killed, or a library failed"


def write(
    folder: Path, settings: DictConfig, fixed: list[str], space: Space, trials: list[Trial]
) -> None:
    """Print the table and the best trials; write both, and figures, into the sweep folder."""
    names, directions = list(settings.objectives), list(settings.directions)
    best = best_of(trials, directions)
    head, *rows = table(folder, names, best, ranked(trials, directions))
    cells = [list(map(formatted, row)) for row in rows]
    text, marked_up = ("\n".join(markdown(head, cells, to)) for to in (one_line, in_markdown))
    files.write_text(folder / "trials.md", marked_up + "\n")
    files.write_csv(folder / "trials.csv", [head, *rows])
    if not best:
        print(text)
        return
    count = Counter(trial.status for trial in trials)
    entries = [
        {
            "trial": trial.number,
            "values": dict(zip(names, trial.values, strict=True)),
            "params": trial.params,
            "command": command(fixed, trial),
        }
        for trial in best
    ]
    content = {
        "sweeper": settings.backend,
        "objectives": dict(zip(names, directions, strict=True)),
        "trials": dict(count),
        "best": entries,
    }
    files.write_text(folder / "optimization_results.yaml", OmegaConf.to_yaml(content))
    front = "Pareto front: no trial is better than these in every objective"
    try:
        search_figures.draw(folder, settings, space, trials)
    finally:
        print(text)
    print(f"\n{'Best' if len(names) == 1 else front}")
    for entry in entries:
        values = ", ".join(f"{name} {formatted(value)}" for name, value in entry["values"].items())
        print(f"  trial {entry['trial']}: {values}\n    {entry['command']}")
    written = "trials.csv, trials.md, optimization_results.yaml and figures (*.png)"
    print(f"\nWritten to {record.shown(folder)}: {written}")


def ranked(trials: Sequence[Trial], directions: Sequence[str]) -> list[Trial]:
    """Sorted by the first objective, the best first; trials without a value come last."""
    finished = [trial for trial in trials if trial.status == "finished"]
    others = [trial for trial in trials if trial.status != "finished"]
    return sorted(finished, key=lambda t: score(t, directions), reverse=True) + others


def table(
    folder: Path, names: list[str], best: list[Trial], trials: list[Trial]
) -> list[list[Any]]:
    """The head, and a row per trial with what its run folder knows of it."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows: list[list[Any]] = [["trial", *names, *keys, "status", "epochs", "reason"]]
    for trial in trials:
        run = record.result_and_status(folder / f"trial={trial.number}")
        # Ten decimals: Ax stores no more, and the same command may read them back.
        values = [round(value, 10) for value in trial.values] or [""] * len(names)
        params = [trial.params.get(key, "") for key in keys]
        status = "best" if trial in best else trial.status
        is_lost = trial.status == "failed" and run["status"] == "interrupted"
        end = [status, run.get("epochs", ""), run.get("reason", LOST if is_lost else "")]
        rows.append([trial.number, *values, *params, *end])
    return rows


def command(fixed: Sequence[str], trial: Trial) -> str:
    """The command that trains a trial again, by itself, with the same result."""
    return shlex.join(["python", Path(sys.argv[0]).name, *fixed, *overrides(trial.params)])
