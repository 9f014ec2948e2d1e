"""Files that are written whole or not at all."""

import csv
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hydra.core.hydra_config import HydraConfig

from lab.escape import in_spreadsheet

PATIENCE = 2.0 if os.name == "nt" else 0.0  # seconds


def located(name: str | Path) -> Path:
    """The absolute path, without "..", of a name in the config or on the command line.

    ~ stands for the home folder; a ~ that does not, as in ~x where there is no user x, is part of
    the name. A relative name starts in the folder in which the command was typed, which
    hydra.job.chdir=true leaves.
    """
    typed_in = HydraConfig.get().runtime.cwd if HydraConfig.initialized() else ""
    return Path(os.path.abspath(os.path.join(typed_in, os.path.expanduser(name))))


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(in_spreadsheet, row) for row in rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode(errors="surrogateescape"))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` once all of it is on the disk: nobody ever reads half of it.

    Raises OSError, naming `path`, if that fails; `path` is then as it was before.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _replace(partial, path)
    except OSError as error:
        if partial.exists():  # on a read-only disk, even unlinking a missing file fails
            partial.unlink()
        raise OSError(
            f"{path} could not be written ({error.strerror}): any earlier version of it is intact. "
            "Free some space or make the folder writable, then resume."
        ) from error


def _replace(partial: Path, path: Path) -> None:
    """Rename, again and again for PATIENCE: Windows refuses it while another process reads `path`,
    a virus scanner for instance."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(partial, path)
            return
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.02)
