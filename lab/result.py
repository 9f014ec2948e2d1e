"""What `result.json` may say: the keys that other code relies on, with a check of each value."""

import math
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import reading
from lab.schema import MAX_EPOCHS

LARGEST = 2**63  # larger whole numbers become no float, and no run has them
LONGEST = 100_000  # characters of a text: a reason may be a long message


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12


def _is_number(value: object) -> bool:  # NaN, too: earlier versions recorded a loss as it was
    return type(value) in (int, float) and not 1e30 < abs(value) < math.inf


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _is_text_or_null(value: object) -> bool:
    return value is None or _is_text(value)


def _is_name_of_changes(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"changes(-\d+)?\.diff", value))


def _is_tracker_id(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{8,32}", value))


def _is_list_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


STATUSES = ("running", "interrupted", "failed", "finished", "pruned")
REQUIRED = {"status": lambda value: value in STATUSES, "overrides": _is_list_of(str)}
OF_A_FINISHED_RUN = {
    "epochs": lambda value: type(value) is int and 1 <= value <= MAX_EPOCHS,
    "val_accuracy": _is_share,
    "test_accuracy": _is_share,
    "seconds": _is_amount,
}
OF_A_PART = {
    "command": _is_list_of(str),
    "versions": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "commit": _is_text_or_null,
    **dict.fromkeys(("started", "device", "device_name", "precision", "data_sha256"), _is_text),
    **dict.fromkeys(("threads", "processes"), _is_count),
}
OPTIONAL = (
    OF_A_FINISHED_RUN
    | OF_A_PART
    | dict.fromkeys(("model", "dataset", "optimizer", "reason"), _is_text)
    | dict.fromkeys(("seed", "best_epoch", "parameters"), _is_count)
    | dict.fromkeys(("val_loss", "test_loss"), _is_number)
    | dict.fromkeys(("images_per_second", "startup_seconds"), _is_amount)
    | {"earlier": _is_list_of(dict), "changes": _is_name_of_changes, "git_error": _is_text}
    | {"tracker_id": _is_tracker_id}
)


def check(result: dict[str, Any], path: Path) -> None:
    """Raises RunFolderError, naming the file and the key, for a value that no run can have."""
    must = REQUIRED | (OF_A_FINISHED_RUN if result.get("status") == "finished" else {})
    for key, is_valid in (OPTIONAL | must).items():
        if key in must and key not in result:
            raise reading.RunFolderError(f"{path} is damaged: {key} is missing.")
        if key in result and not is_valid(result[key]):
            shown = f"{_short.repr(result[key]):.60}"
            raise reading.RunFolderError(f"{path} is damaged: {key}={shown} cannot be.")
    for _, value in reading.nodes(result):
        if type(value) is int and abs(value) >= LARGEST:
            raise reading.RunFolderError(f"{path} is damaged: it has a number that is too large.")


_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60
