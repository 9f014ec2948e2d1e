"""The run folder, which is the record of a run: how it is locked, read and written."""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
from omegaconf import DictConfig, OmegaConf

from lab import files, provenance, trust
from lab.errors import Refusal


class RunFolderError(Refusal):
    """A folder that is not a run folder, or that cannot be used now; the message says why."""


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _is_list_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


# The keys of result.json that other code relies on, with a check of each value.
STATUSES = ("running", "interrupted", "failed", "finished", "pruned")
REQUIRED = {"status": lambda value: value in STATUSES, "overrides": _is_list_of(str)}
OF_A_FINISHED_RUN = {
    "epochs": lambda value: type(value) is int and value >= 1,
    "val_accuracy": _is_share,
    "test_accuracy": _is_share,
    "seconds": _is_amount,
}
OPTIONAL = OF_A_FINISHED_RUN | {"earlier": _is_list_of(dict)}


def read_run(folder: Path, trusted: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the result of a run folder, which may come from a stranger.

    Raises RunFolderError for a folder that is not a run folder or holds links, ConfigError for a
    config with anything but this project's keys and what a run folder may say (`lab.trust`).
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not a folder: give the path of a run folder.")
    for name in ("config.yaml", "result.json"):
        if not (folder / name).is_file():
            raise RunFolderError(f"{folder} is not a run folder: it has no {name}.")
    check_no_links(folder)
    config = read_config(folder)
    trust.check_foreign(config, folder / "config.yaml", trusted)
    return config, read_result(folder)


def check_no_links(folder: Path) -> None:
    """Raises RunFolderError for a link in the folder, through which files could be written."""
    for path in folder.iterdir():
        if path.is_symlink():
            raise RunFolderError(
                f"{path} is a link, which could lead out of the folder: remove it."
            )


def read_config(folder: Path) -> dict[str, Any]:
    """`config.yaml` as data: nothing in it has been checked. Raises RunFolderError."""
    path = folder / "config.yaml"
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise RunFolderError(f"{path} is damaged: it cannot be read as YAML.") from error
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} is damaged: it holds no keys.")
    return trust.with_current_names(config)


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json`, which may come from a stranger; empty if there is none yet.

    Raises RunFolderError, naming the file and the key, for a value that no run can have.
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
    """A JSON object; empty if the file does not exist. Raises RunFolderError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:  # whatever a damaged or hostile file provokes
        raise RunFolderError(f"{path} is damaged: it cannot be read as JSON.") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} is damaged: it holds no keys.")
    return content


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
    try:
        written = read_result(folder).get("status", "new")
    except RunFolderError:
        return "damaged"
    if written != "running":
        return written
    try:
        with locked(folder, patience=0):
            return "interrupted"
    except (RunFolderError, OSError):  # OSError: a read-only folder, whose lock cannot be tried
        return "running"


def result_and_status(folder: Path) -> dict[str, Any]:
    """`result.json` with the status of the run now; the status alone for a damaged folder."""
    now = {"status": status(folder)}
    return now if now["status"] == "damaged" else read_result(folder) | now


@contextmanager
def locked(folder: Path, patience: float = 1) -> Iterator[None]:
    """Raises RunFolderError while another process runs in `folder`.

    The lock is tried for `patience` seconds, since `status` takes it for an instant. A lock file
    that did not exist before is removed, so that looking at a folder does not change it.
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
            # A process that waits notices, and makes a new one.
            with suppress(PermissionError):  # Windows: a file that is open; filelock removes it
                path.unlink(missing_ok=True)
        lock.release()


def write_config(path: Path, cfg: DictConfig) -> None:
    files.write_text(path, OmegaConf.to_yaml(OmegaConf.create(portable(cfg))))


def portable(cfg: DictConfig) -> dict[str, Any]:
    """The content of a config, such that it means the same everywhere and at any time.

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
    if isinstance(raw, str) and trust.RESOLVER.search(raw):
        return resolved.replace("${", r"\${") if isinstance(resolved, str) else resolved
    return raw


def write_changes(folder: Path, part: int) -> None:
    """Write `changes.diff`, the uncommitted changes of the code that runs now.

    `part` counts the earlier parts of a resumed run. If theirs differ, they are kept as
    changes-N.diff, N being the last part that they belong to.
    """
    path = folder / "changes.diff"
    if has_other_changes(folder):
        files.write_text(folder / f"changes-{part}.diff", _read_changes(path))
    files.write_text(path, provenance.uncommitted_changes())


def has_other_changes(folder: Path) -> bool:
    """Whether the uncommitted changes that the folder records are not those of the code now."""
    path = folder / "changes.diff"
    return path.exists() and _read_changes(path) != provenance.uncommitted_changes()


def _read_changes(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def shown(folder: Path) -> str:
    """The folder as a person would write it: relative to the current folder if it is below it."""
    try:
        here = files.located(".")
    except OSError:  # somebody has deleted it
        return str(folder)
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
