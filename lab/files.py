"""Files that are written whole or not at all."""

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
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
        os.replace(partial, path)
    except OSError as error:
        if partial.exists():  # on a read-only disk, even unlinking a missing file fails
            partial.unlink()
        raise OSError(
            f"{path} could not be written ({error.strerror}): any earlier version of it is intact. "
            "Free some space or make the folder writable, then resume."
        ) from error
