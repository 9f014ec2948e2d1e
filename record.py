"""The run folder as the record of a run: what is written into it and read from it."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import filelock
from omegaconf import DictConfig, OmegaConf

import provenance
from config import schema
from config.errors import Refusal


def is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def is_list_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


# What result.json says, as far as anything relies on it.
STATUSES = ("running", "interrupted", "failed", "finished", "pruned")
REQUIRED = {"status": lambda value: value in STATUSES, "overrides": is_list_of(str)}
OF_A_FINISHED_RUN = {
    "epochs": lambda value: type(value) is int and value >= 1,
    "val_accuracy": is_share,
    "test_accuracy": is_share,
    "seconds": is_amount,
}
OPTIONAL = OF_A_FINISHED_RUN | {"earlier": is_list_of(dict)}


class RunFolderError(Refusal):
    """A folder that is no run, or not one that can be used now, told in one sentence."""


def write_changes(folder: Path, part: int) -> None:
    """`changes.diff` of the part of a run that begins, when `part` of them came before.

    Where theirs differ, they stay as changes-N.diff, N being the last part that it is of.
    """
    path, changes = folder / "changes.diff", provenance.uncommitted_changes()
    before = path.read_bytes().decode(errors="surrogateescape") if path.exists() else changes
    if before != changes:
        write_text(folder / f"changes-{part}.diff", before)
    write_text(path, changes)


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the result of a run folder, which may come from a stranger.

    Raises RunFolderError for a folder that is no run or holds links, ConfigError for a config that
    names anything but this project's keys and allowed classes.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not a folder: give the path of a run folder.")
    for name in ("config.yaml", "result.json"):
        if not (folder / name).is_file():
            raise RunFolderError(f"{folder} is not a run folder: it has no {name}.")
    for path in folder.iterdir():
        if path.is_symlink():
            raise RunFolderError(
                f"{path} is a link, which could lead out of the folder: remove it."
            )
    path = folder / "config.yaml"
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise RunFolderError(f"{path} is damaged: it cannot be read as YAML.") from error
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} is damaged: it holds no keys.")
    schema.check_foreign(config, path)
    return config, read_result(folder)


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json`, which may come from a stranger; empty where there is none yet.

    Raises RunFolderError, naming the file and the key, for one that tells no run's result.
    """
    path = folder / "result.json"
    if not path.exists():
        return {}
    result = read_json(path)
    must = REQUIRED | (OF_A_FINISHED_RUN if result.get("status") == "finished" else {})
    for key, is_valid in (OPTIONAL | must).items():
        if key in must and key not in result:
            raise RunFolderError(f"{path} is damaged: {key} is missing.")
        if key in result and not is_valid(result[key]):
            raise RunFolderError(f"{path} is damaged: {key}={result[key]!r:.60} cannot be.")
    return result


def read_json(path: Path) -> dict[str, Any]:
    """Empty where there is none yet. Raises RunFolderError for a file that is no JSON object."""
    try:
        content = json.loads(path.read_text()) if path.exists() else {}
    except (ValueError, RecursionError) as error:  # whatever a damaged or hostile file provokes
        raise RunFolderError(f"{path} is damaged: it cannot be read as JSON.") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} is damaged: it holds no keys.")
    return content


def check_writable(folder: Path) -> None:
    """Raises RunFolderError for a folder that a run could not go on in."""
    files = [path for name in ("script.log", ".lock") if (path := folder / name).exists()]
    for path in (folder, *files):
        if not os.access(path, os.W_OK):
            raise RunFolderError(
                f"{path} cannot be written to: make it writable, or resume a copy of the folder."
            )


def status(folder: Path) -> str:
    """new, running, interrupted, failed, pruned, finished or damaged. A killed run is
    interrupted."""
    try:
        written = read_result(folder).get("status", "new")
    except RunFolderError:
        return "damaged"
    if written != "running":
        return written
    try:
        with locked(folder, patience=0):
            return "interrupted"
    except (RunFolderError, OSError):  # OSError: a folder that may only be read tells no more
        return "running"


@contextmanager
def locked(folder: Path, patience: float = 1) -> Iterator[None]:
    """Raises RunFolderError while another process runs in `folder`.

    `status` takes the lock for an instant, so it is tried for `patience` seconds. The lock file
    goes with who made it: a folder that was only looked at stays as it was.
    """
    path = folder / ".lock"
    is_new = not path.exists()
    lock = filelock.FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunFolderError(f"{folder} is in use: another process is running there.") from None
    try:
        yield
    finally:
        if is_new:
            path.unlink(missing_ok=True)  # who waits for it notices that, and makes another
        lock.release()


def write_config(path: Path, cfg: DictConfig) -> None:
    """References between keys stay, so that an override on resuming reaches all that follows it."""
    own = cfg.copy()
    own.name = cfg.name  # not the time of day at which it is read
    own.data_dir = cfg.data_dir and str(Path(cfg.data_dir).expanduser().absolute())
    write_text(path, OmegaConf.to_yaml(own))


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode(errors="surrogateescape"))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once all of it is on the disk: nobody ever sees half.

    Raises OSError, naming `path`, when that fails; `path` is then as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if partial.exists():  # a read-only disk refuses to remove even what is not there
            partial.unlink()
        raise OSError(
            f"{path} could not be written ({error.strerror}): what was there before is whole. "
            "Make room or make the folder writable, then resume."
        ) from error
