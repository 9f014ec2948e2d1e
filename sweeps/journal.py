"""The journal of a search with Optuna: a record per line, appended under a lock."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from lab import files, reading, record
from lab.errors import ConfigError

MOST = 2**26  # bytes; a trial takes about a thousand


class Journal(JournalFileBackend):
    """Optuna's journal in a file, which survives a write that stopped halfway: on a full disk, or
    when the process was killed.

    Raises Refusal for a link or a file that is too large, and ConfigError for a damaged record.
    """

    def __init__(self, path: Path):
        lock = Path(f"{path}.lock")
        for file in (path, lock):
            files.check_regular(file)
        self.path = path
        # The kernel releases this lock if the process is killed; Optuna's own lock would remain.
        self.lock = filelock.FileLock(lock)
        super().__init__(str(path), lock_obj=self.lock)
        with self.lock:
            self._drop_unterminated()
            self._check()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self.lock:
            self._drop_unterminated()  # of another process, which may have been killed by now
            size = self.path.stat().st_size
            try:
                super().append_logs(logs)
            except OSError as error:
                os.truncate(self.path, size)
                raise OSError(
                    f"{self.path} could not be written ({error.strerror}): what was in it is "
                    "intact. Free some space or make the folder writable, then repeat the command."
                ) from error

    def _drop_unterminated(self) -> None:
        """Remove the last record if a write stopped in the middle of it."""
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            end = size
            while end and (start := max(0, end - 4096)) < end:
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                file.truncate(end)
                print(
                    f"{record.shown(self.path)}: the last record was cut off after "
                    f"{size - end} bytes, by a full disk or a kill, and is dropped.",
                    flush=True,
                )

    def _check(self) -> None:
        lines = reading.read_bytes(self.path, MOST).splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if not _is_record(line):
                raise ConfigError(
                    f"{self.path} is damaged in line {number} of {len(lines)}: the "
                    f"{_finished(lines[: number - 1])} trials that ended before it are whole. "
                    f"Restore the file from a backup, or keep its first {number - 1} lines alone: "
                    "later trials are then proposed again, and take the results of their run "
                    "folders."
                )


def _is_record(line: bytes) -> bool:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("op_code"), int)


def _finished(lines: Sequence[bytes]) -> int:
    """The number of trials whose end is recorded."""
    ends = [
        entry
        for entry in map(json.loads, lines)
        if entry["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES
        and entry.get("state") not in (TrialState.RUNNING, TrialState.WAITING)
    ]
    return len({entry.get("trial_id") for entry in ends})
