"""The configs of many runs, read fast: what two of them have in common is parsed once.

The runs of a sweep differ in a few lines of their configs, and the parser takes a millisecond for
each config. So a file is cut before each of its top-level keys, and what was parsed is remembered
by its text, within bounds.
"""

import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from lab import reading, record, trust
from lab.schema import NOT_THE_EXPERIMENT, flat

# Runs that differ in seed or fold alone are averaged; what a recipe sets is in the config.
NO_SETTINGS = ("seed", "fold", "sweep", *NOT_THE_EXPERIMENT)
TOP = re.compile(r"^(?=[A-Za-z_]\w*:)", re.MULTILINE)  # before a key at the start of a line
# What could be more than one mapping, and what YAML takes for the end of a line and `TOP` does not.
ODD = re.compile(r"^(---|\.\.\.|%)|[\r\x85\u2028\u2029]", re.MULTILINE)
LONGEST, MOST = 2**16, 1024  # characters of a part that is remembered, and how many of them


def read(folder: Path) -> dict[str, str]:
    """The values of a run's config by their full keys; empty if there is none.

    References are kept: configs that say the same are the same. Raises RunFolderError.
    """
    path = folder / "config.yaml"
    if not os.path.lexists(path):
        return {}
    start, *parts = TOP.split(reading.read_text(path))
    keys = {_key(part) for part in parts}
    found: dict[str, str] = {}
    for part in parts if not start and len(keys) == len(parts) else (None,):
        leaves = part and (_leaves if len(part) <= LONGEST else _leaves.__wrapped__)(part)
        if leaves is None:  # the parser, given all of it, says what is wrong, if anything is
            return only_settings(flat(record.read_config(folder)))
        found |= leaves
    return found


def _key(part: str) -> str:
    return part.partition(":")[0]


@lru_cache(MOST)
def _leaves(part: str) -> dict[str, str] | None:
    """The settings in a part of a config; None if it is not one key and its value."""
    try:
        content = None if ODD.search(part) else reading.parse_yaml(part)
    except Exception:  # whatever a damaged or hostile file provokes
        return None
    if not isinstance(content, dict) or list(content) != [_key(part)]:
        return None
    leaves = only_settings(flat(trust.with_current_names(content)))
    return {sys.intern(key): value for key, value in leaves.items()}


def only_settings(values: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if key.split(".")[0] not in NO_SETTINGS}
