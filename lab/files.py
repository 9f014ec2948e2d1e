"""Files that are written whole or not at all."""

import csv
import errno
import glob
import io
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from lab import reading
from lab.errors import Refusal
from lab.escape import in_spreadsheet

PATIENCE = 2.0 if os.name == "nt" else 0.0  # seconds
ABANDONED = 3600.0  # seconds without a write, after which no process is still writing a file


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
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` once all of it is on the disk: nobody ever reads half of it.

    It is written under a name of its own, so that several processes may write `path` at once: the
    last one wins. A link at `path` is replaced, never followed. Raises OSError, naming `path`, if
    that fails; `path` is then as it was before.
    """
    discard_abandoned(path.parent, glob.escape(path.name))
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:  # x: neither an existing file nor a link is opened
            yield file
            file.flush()
            os.fsync(file.fileno())
        _replace(partial, path)
    except BaseException as error:
        with suppress(OSError):  # it may not exist, and the disk may be read-only by now
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        raise OSError(
            f"{path} could not be written ({error.strerror}): any earlier version of it is intact. "
            "Free some space or make the folder writable, then resume."
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that a disk or a quota has no space left.

    It is known by its words: an exception that another process has sent has no cause any more.
    """
    words = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT)]
    while error is not None:
        if any(word in str(error) for word in words):
            return True
        error = error.__cause__
    return False


def discard_abandoned(folder: Path, names: str = "*", seconds: float = ABANDONED) -> None:
    """Remove what processes that were killed while they wrote the files `names`, a pattern, have
    left in `folder`, if it is that old. With 0, no other process may be writing there."""
    for partial in folder.glob(f".{names}.*partial"):
        with suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - partial.lstat().st_mtime >= seconds:
                partial.unlink()


def regular(name: str, flags: int) -> int:
    """An opener, as in `open(path, "ab", opener=regular)`, that follows no link.

    Raises Refusal for anything but a regular file: a pipe, for instance, would wait for a reader.
    """
    check_regular(Path(name))
    for flag in ("O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, flag, 0)  # not on Windows
    return os.open(name, flags, 0o666)


def check_regular(path: Path) -> None:
    """Raises Refusal for a file, to be written to in place, that is a link, a pipe or a folder, or
    that has a second name, by which it may belong to another folder."""
    if not os.path.lexists(path):
        return
    found = path.lstat()
    reading.check_regular(path, found)
    if found.st_nlink > 1:
        raise Refusal(
            f"{path} has {found.st_nlink} names (hard links), and writing to it would change the "
            "file of the others, too: replace it by a copy."
        )


def check_no_link(path: Path) -> None:
    """Raises Refusal for a link."""
    if path.is_symlink():
        raise Refusal(f"{path} is a link, which could lead out of the folder: remove it.")


def check_job_folder(folder: Path) -> None:
    """Raises Refusal if something in the folder of a run or a job is a link or a pipe that would be
    written through, or if the folder of a job is itself a link."""
    check_no_link(folder / ".hydra")
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # the folder of a single run is the user's own
        check_no_link(folder)
    for path in (folder / ".lock", *folder.glob("*.log")):
        check_regular(path)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder unless it exists. Raises Refusal for a link, which could lead anywhere."""
    check_no_link(path)
    path.mkdir(mode=mode, parents=True, exist_ok=True)


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
