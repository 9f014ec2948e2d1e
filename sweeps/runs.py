"""Run folders as rows: what was run, which settings tell the runs apart, means over seeds."""

import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lab import record
from lab.errors import Refusal
from lab.schema import NOT_THE_EXPERIMENT, flat
from sweeps.table import sort_key

FIGURES = ("val_accuracy", "test_accuracy", "seconds")  # of `result.json`, in the table's order
GROUPS = ("model", "dataset", "optimizer")  # whose chosen options `result.json` records
DEEPEST = 16  # levels of folders below the one that is given: runs/NAME/JOB has two
# Runs that differ in seed or fold alone are averaged; what a recipe sets is in the config.
NO_SETTINGS = ("seed", "fold", "sweep", *NOT_THE_EXPERIMENT)


def read(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """A dictionary per run below `folders`: its `result.json`, its status now, its folder, the
    overrides it was `asked` for, and its `config`.

    Runs of the same config share `asked` and `config`, however they were started. Raises Refusal
    for a folder without any run.
    """
    paths: dict[Path, Path] = {}  # a folder that is given twice counts once
    for folder in folders:
        below = sorted(found_below(folder))
        if not below:
            raise Refusal(f"{folder} holds no run: give a folder with run folders below it.")
        paths |= {path.resolve(): path for path in below}
    runs, known = [], {}
    for path in paths.values():
        run, config = _read_one(path)
        pairs = (override.lstrip("+~").partition("=") for override in run.get("overrides", ()))
        asked = only_settings({key: value for key, _, value in pairs})
        own = {"asked": asked, "config": config}
        identity = config or asked
        settings = known.setdefault(json.dumps(identity, sort_keys=True), own)
        runs.append(run | {"folder": path} | settings)
    return runs


def found_below(folder: Path) -> Iterator[Path]:
    """The run folders in a folder, DEEPEST levels down, and what cannot be searched. Links are not
    followed: they may lead in circles."""
    left = [(folder, 0)]
    while left:
        path, depth = left.pop()
        try:
            with os.scandir(path) as entries:
                names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:
            if depth:  # the first is not there: then it holds no run
                yield path
            continue
        if "result.json" in names or (depth == DEEPEST and any(names.values())):
            yield path
        if depth < DEEPEST:
            left += [(path / name, depth + 1) for name, is_folder in names.items() if is_folder]


def _read_one(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """`result.json` of a run with its status now, and the values of its config. A folder that
    cannot be read has the status damaged, and the reason."""
    try:
        if not os.path.lexists(folder / "result.json"):
            raise Refusal(f"it cannot be searched, or has more than {DEEPEST} levels below it")
        run = record.result_and_status(folder)
        return run, read_config(folder) if run["status"] != "damaged" else {}
    except Refusal as error:
        return {"status": "damaged", "reason": str(error)}, {}


def read_config(folder: Path) -> dict[str, str]:
    """The values of a run's config by their full keys; empty if there is none.

    References are kept: configs that say the same are the same. Raises RunFolderError.
    """
    if not os.path.lexists(folder / "config.yaml"):
        return {}
    return only_settings(flat(record.read_config(folder)))


def only_settings(values: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if key.split(".")[0] not in NO_SETTINGS}


def setting(run: dict[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """The values of `keys` in a run. The option of a group is known from `result.json` or the
    overrides, any other value from the config."""
    chosen = run["asked"] | {group: str(run[group]) for group in GROUPS if group in run}
    return tuple(run["config"].get(key, chosen.get(key, "")) for key in keys)


def what_varied(runs: list[dict[str, Any]]) -> list[str]:
    """The settings that tell the runs apart: the keys of the table's columns.

    These are the keys that somebody set. If configs differ in spite of that, as they do after a
    default was changed, the fewest keys that tell them apart are added.
    """
    settled = [run for run in runs if run["config"]] or runs  # a refused run has no config
    varied = differing(settled, "asked")
    while True:
        alike: dict[tuple, list[dict]] = {}
        for run in settled:
            alike.setdefault(setting(run, varied), []).append(run)
        more = next(filter(None, (differing(group, "config") for group in alike.values())), [])
        if not more:
            return varied
        # The name of a class comes first, since another class has other arguments.
        classes = [key for key in more if key.endswith("._target_")]
        varied.append(max(classes or more, key=lambda key: num_values(settled, key)))


def differing(runs: list[dict[str, Any]], source: str) -> list[str]:
    """The keys of `source`, "asked" or "config", whose values are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run[source])
    return [key for key in keys if num_values(runs, key) > 1]


def num_values(runs: list[dict[str, Any]], key: str) -> int:
    return len({setting(run, [key]) for run in runs})


def grouped(runs: list[dict[str, Any]], varied: list[str]) -> list[dict[str, Any]]:
    """A row per setting: (mean, std over the seeds) of each figure of its finished runs.

    `best` marks the highest mean validation accuracy, for each dataset if there are several.
    """
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        if run["status"] == "finished":
            groups.setdefault(setting(run, varied), []).append(run)
    rows = []
    for values in sorted(groups, key=lambda values: list(map(sort_key, values))):
        members = groups[values]
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
