"""Run folders as rows: what was run, which settings tell the runs apart, means over seeds."""

import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lab import record
from lab.errors import Refusal
from lab.newest import DEEPEST
from lab.origin import GROUPS
from sweeps import configs
from sweeps.table import sort_key

FIGURES = ("val_accuracy", "test_accuracy", "seconds")  # of `result.json`, in the table's order
# What is kept of `result.json`: ten thousand of them would fill the memory.
KEPT = (*GROUPS, *FIGURES, "status", "overrides", "seed", "epochs", "best_epoch", "parameters")
KEPT += ("reason",)


def read(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """A dictionary per run below `folders`: what is KEPT of its `result.json`, its status now, its
    folder, the keys that it was `asked` for, the keys of its `config`, and the `values` of both.

    Runs of the same config share these, however they were started. Raises Refusal for a folder
    without any run.
    """
    paths: dict[Path, Path] = {}  # a folder that is given twice counts once
    for folder in folders:
        if not folder.is_dir():
            raise Refusal(f"{folder} is not a folder: give one with run folders below it.")
        below = sorted(found_below(folder))
        if not below:
            raise Refusal(f"{folder} holds no run: give a folder with run folders below it.")
        root = folder.resolve()  # links below it are not followed
        paths |= {root / path.relative_to(folder): path for path in below}
    known: dict[Any, Any] = {}  # what runs share, by its content
    return [_shared(*_read_one(path), known) | {"folder": path} for path in paths.values()]


def _shared(run: dict[str, Any], config: dict[str, str], known: dict[Any, Any]) -> dict[str, Any]:
    """A run with the keys that it was asked for, those of its config, and the values of both."""
    pairs = (override.lstrip("+~").partition("=") for override in run.pop("overrides", ()))
    asked = configs.only_settings({key: value for key, _, value in pairs})
    identity = frozenset((config or asked).items())
    asked = known.setdefault(identity, asked)
    groups = {group: run[group] for group in GROUPS if group in run}
    shared = known.get((identity, *groups.items()))
    if shared is None:
        keys = tuple(config)
        shared = {"asked": tuple(asked), "config": known.setdefault(keys, keys)}
        shared["values"] = asked | groups | config
        known[identity, *groups.items()] = shared
    return run | shared


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
        found = record.result_and_status(folder)
        run = {key: found[key] for key in KEPT if key in found}
        return run, configs.read(folder) if run["status"] != "damaged" else {}
    except Refusal as error:
        return {"status": "damaged", "reason": str(error)}, {}


def setting(run: dict[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """The values of `keys` in a run. The option of a group is known from `result.json` or the
    overrides, any other value from the config."""
    return tuple([run["values"].get(key, "") for key in keys])


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
    distinct = list({id(run["values"]): run for run in runs}.values())
    if len(distinct) == 1:
        return []
    keys = dict.fromkeys(key for run in distinct for key in run[source])
    return [key for key in keys if num_values(distinct, key) > 1]


def num_values(runs: list[dict[str, Any]], key: str) -> int:
    return len({run["values"].get(key, "") for run in runs})


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
            row[figure] = (statistics.fmean(figures), std)
        rows.append(row)
    best: dict[str, dict] = {}
    for row in rows:
        dataset = row["setting"][varied.index("dataset")] if "dataset" in varied else ""
        if dataset not in best or row["val_accuracy"][0] > best[dataset]["val_accuracy"][0]:
            best[dataset] = row
    winners = set(map(id, best.values()))
    return [row | {"best": id(row) in winners} for row in rows]
