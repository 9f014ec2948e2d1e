"""The uncommitted changes of the code, kept in the run folder for each part of a run."""

from pathlib import Path
from typing import Any

from lab import files, provenance, reading

MOST = 256 * reading.MOST  # bytes of a diff, which lab.repository bounds


def write(folder: Path, before: dict[str, Any], part: int) -> str:
    """Write the uncommitted changes of the code that runs now. Returns the name of their file.

    A part of a run, counted from 1, writes a file of its own, `changes.diff` or changes-PART.diff,
    unless the part `before` it ran on the same changes. What an earlier part wrote is never
    touched, so a part that is killed before it is recorded has cost nothing.
    """
    if before and read(folder, before) == provenance.uncommitted_changes():
        return file_of(before)
    name = "changes.diff" if part == 1 else f"changes-{part}.diff"
    files.write_text(folder / name, provenance.uncommitted_changes())
    return name


def file_of(result: dict[str, Any]) -> str:
    """The name of the file with the uncommitted changes of the last part of a run."""
    return result.get("changes", "changes.diff")


def are_other(folder: Path, result: dict[str, Any]) -> bool:
    """Whether the uncommitted changes that `result` records are not those of the code now."""
    return read(folder, result) not in (None, provenance.uncommitted_changes())


def read(folder: Path, result: dict[str, Any]) -> str | None:
    """The uncommitted changes of the last part of a run; None if they were not recorded."""
    path = folder / file_of(result)
    if not path.exists():
        return None
    return reading.read_bytes(path, MOST).decode(errors="surrogateescape")
