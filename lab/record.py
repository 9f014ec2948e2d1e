"""The run folder, which is the record of a run: how it is locked, read and written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

import filelock
from omegaconf import DictConfig, OmegaConf

from lab import files, reading, references, result, trust
from lab.reading import RunFolderError

REQUIRED = ("config.yaml", "result.json")  # without them, a folder is not a run folder
# The files of a run folder that a run writes.
FILES = (*REQUIRED, "metrics.csv", "changes.diff", "script.log", ".lock", "best.pt", "last.pt")


class InUse(RunFolderError):
    """A folder in which another process is running."""


def read_run(folder: Path, trusted: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the result of a run folder, which may come from a stranger. Its trackers are
    left out: `lab.tracker_settings`.

    Raises RunFolderError for a folder that is not a run folder or holds links, ConfigError for a
    config with anything but this project's keys and what a run folder may say (`lab.trust`).
    """
    if not folder.is_dir():
        raise RunFolderError(
            f"{folder} is not a folder: give the path of a run folder, or last for the newest one "
            "in runs/."
        )
    check_entries(folder)
    for name in REQUIRED:
        if not (folder / name).exists():
            raise RunFolderError(f"{folder} is not a run folder: it has no {name}.")
    config = read_config(folder)
    config.pop("logger", None)
    trust.check_foreign(config, folder / "config.yaml", trusted)
    return config, read_result(folder)


def is_run_folder(folder: Path) -> bool:
    """Whether the files that every run folder has are there, whatever is in them."""
    return all(os.path.lexists(folder / name) for name in REQUIRED)


def check_entries(folder: Path) -> None:
    """Raises RunFolderError for a link, a pipe or a device in a run folder, and where one of its
    files is a folder: files could be written elsewhere, or be waited for."""
    reading.check_entries(folder, files=FILES, folders=(".hydra",))


def check_own_files(folder: Path) -> None:
    """Raises RunFolderError if a file that a new run would write is a link, a pipe or a device."""
    for path in filter(os.path.lexists, (folder / name for name in FILES)):
        reading.check_regular(path, path.lstat())


def read_config(folder: Path) -> dict[str, Any]:
    """`config.yaml` as data: nothing in it has been checked. Raises RunFolderError."""
    return trust.with_current_names(reading.read_yaml(folder / "config.yaml"))


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json`, which may come from a stranger; empty if there is none yet.

    Raises RunFolderError, naming the file and the key, for a value that no run can have.
    """
    path = folder / "result.json"
    if not os.path.lexists(path):
        return {}
    content = reading.read_json(path)
    result.check(content, path)
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file does not exist. Raises RunFolderError for anything else."""
    return reading.read_json(path) if os.path.lexists(path) else {}


def check_writable(folder: Path) -> None:
    """Raises RunFolderError for a folder in which a run cannot continue."""
    own = [path for name in ("script.log", ".lock") if (path := folder / name).exists()]
    for path in (folder, *own):
        if not os.access(path, os.W_OK):
            raise RunFolderError(
                f"{path} cannot be written to: make it writable, or resume a copy of the folder."
            )


def status(folder: Path) -> str:
    """new, running, interrupted, failed, pruned, finished or damaged.

    A run that was killed still says "running" in its file; its status is interrupted.
    """
    return result_and_status(folder)["status"]


def _status(folder: Path, written: str) -> str:
    if written != "running":
        return written
    return "running" if is_locked(folder) else "interrupted"


def result_and_status(folder: Path) -> dict[str, Any]:
    """`result.json` with the status of the run now; that and the reason for a damaged folder."""
    try:
        if folder.is_dir():
            check_entries(folder)
        found = read_result(folder)
        return found | {"status": _status(folder, found.get("status", "new"))}
    except RunFolderError as error:
        return {"status": "damaged", "reason": str(error)}


@contextmanager
def locked(folder: Path, patience: float = 1) -> Iterator[None]:
    """Raises InUse while another process runs in `folder`.

    The lock is tried for `patience` seconds, since `is_locked` takes it for an instant.
    """
    path = folder / ".lock"
    files.check_regular(path)
    lock = filelock.FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InUse(f"{folder} is in use: another process is running there.") from None
    try:
        yield
    finally:
        # A process that waits notices that the file is gone, and makes a new one.
        with suppress(PermissionError):  # Windows: a file that is open; filelock removes it
            path.unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process runs in `folder`, which the question does not change."""
    path = folder / ".lock"
    if path.is_symlink() or not path.is_file():
        return False
    try:
        file = path.open("rb")
    except OSError:  # the process has just ended, or could be none of ours
        return False
    with file:
        try:
            if fcntl is None:
                return not filelock.lock_descriptor(file.fileno(), blocking=False)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may ask, too
        except OSError:  # it is locked; or there are no locks here, and the file itself is one
            return True
    return False


def write_config(path: Path, cfg: DictConfig) -> None:
    files.write_text(path, OmegaConf.to_yaml(OmegaConf.create(portable(cfg))))


def portable(cfg: DictConfig) -> dict[str, Any]:
    """The content of a config, so that it means the same everywhere and at any time.

    Resolvers (`oc.env`, `now`, …) are resolved, and paths are made absolute. References between
    keys are kept, so that an override on resuming reaches all keys that refer to it.
    """
    raw, resolved = OmegaConf.to_container(cfg), OmegaConf.to_container(cfg, resolve=True)
    content = without_resolvers(raw, resolved)
    for key in ("data_dir", "init_from"):
        if cfg[key]:
            content[key] = str(files.located(cfg[key]))
    return content


def without_resolvers(raw: Any, resolved: Any) -> Any:
    """`raw`, but with the value in `resolved` for every string that calls a resolver."""
    if isinstance(raw, dict):
        return {key: without_resolvers(value, resolved[key]) for key, value in raw.items()}
    if isinstance(raw, list):
        return [without_resolvers(*pair) for pair in zip(raw, resolved, strict=True)]
    if isinstance(raw, str) and references.calls_resolver(raw):
        return resolved.replace("${", r"\${") if isinstance(resolved, str) else resolved
    return raw


def shown(folder: Path) -> str:
    """The folder as a person would write it: relative to the current folder if it is below it."""
    try:
        here = files.located(".")
    except OSError:  # somebody has deleted it
        return str(folder)
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
