"""The jobs of a sweep: their folders' names, their state before it starts, how each one ended."""

import hashlib
import os
import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from lab import changes, command_line, provenance, reading, record
from lab.cause import described
from lab.errors import ConfigError, Refusal, RunFailed, explain
from lab.escape import one_line

# What a sweep writes into its folder, besides the folders of its jobs.
FILES = (
    *("multirun.yaml", "results.csv", "results.md", "results.png", "results.html", ".lock"),
    *("search.json", "search.journal", "search.journal.lock", "search.ax.json"),
    *("trials.csv", "trials.md", "optimization_results.yaml", ".sweep"),
)
FOLDERS = (".printed", ".submitit", ".code")


def check_name(name: str, overrides: Collection[Override]) -> None:
    """Raises ConfigError for a name that is not a folder of its own below runs/."""
    if any(
        override.key_or_group == "name" and override.is_sweep_override() for override in overrides
    ):
        raise ConfigError("name is for the whole sweep: give a single one, without commas.")
    parts = Path(name).parts
    if not parts or ".." in parts:
        raise ConfigError(
            f"name={name} is not allowed: it must name a folder below runs/, like name=mine."
        )


def enter(folder: Path, of_jobs: Iterable[Path]) -> None:
    """Make the folder of a sweep, or check the one that is there and those `of_jobs` in it, which
    may come from a stranger: jobs will write to them.

    Raises Refusal for a folder of another user, who could change it meanwhile, and for what could
    lead out of it or be waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_owner(folder)
    reading.check_entries(folder, files=FILES, folders=FOLDERS)
    for path in filter(os.path.lexists, of_jobs):
        if not path.is_dir():
            raise Refusal(f"{path} is a file, but must be the folder of a job: remove it.")
        _check_owner(path)
        record.check_entries(path)


def _check_owner(folder: Path) -> None:
    owner = folder.stat().st_uid
    if hasattr(os, "geteuid") and owner != os.geteuid():
        raise Refusal(
            f"{folder} belongs to another user ({_user(owner)}), who could change what the jobs "
            "do: give the sweep another name, or enter a copy of the folder."
        )


def _user(number: int) -> str:
    import pwd  # not on Windows

    with suppress(KeyError):  # of another machine, for instance
        return pwd.getpwuid(number).pw_name
    return f"number {number}"


@contextmanager
def resumable(config: DictConfig) -> Iterator[None]:
    """Print the command that resumes the sweep, if a signal ends it within the context."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(f"Resume with: {shlex.join(['python', *command(config)])}", flush=True)
        raise


def command(config: DictConfig) -> list[str]:
    """The command line of a sweep, with the name or folder that it got if none was typed."""
    typed = provenance.command()
    keys = [word.lstrip("+").partition("=")[0] for word in typed]
    if "name" in config and "hydra.sweep.dir" not in keys:
        place, value = "name", config.name
    else:
        place, value = "hydra.sweep.dir", config.hydra.sweep.dir
    if keys.count(place) == 1 and "${" not in typed[keys.index(place)]:  # the time, for instance
        return typed
    others = [word for word, key in zip(typed, keys, strict=True) if key != place]
    return [*others, f"{place}={command_line.quoted(value) if ',' in value else value}"]


def folder_name(overrides: Iterable[str]) -> str:
    """The name of a job's folder, from the overrides that the sweeper gave it."""
    pairs = (override.partition("=") for override in overrides)
    return next((value.strip("'") for key, _, value in pairs if key == "hydra.sweep.subdir"), "")


def announce(status: dict[Path, str]) -> None:
    """Print how many jobs there are in each state, and how many of them ran on other code."""
    words = {
        "finished": "finished",
        "queued": "queued",
        "running": "running elsewhere",
        "interrupted": "to resume",
        "failed": "failed before",
        "damaged": "damaged",
        "pruned": "pruned",
        "new": "new",
    }
    count = Counter(status.values())
    parts = [f"{count[state]} {word}" for state, word in words.items() if count[state]]
    print(f"{len(status)} job{'s' * (len(status) != 1)}: {', '.join(parts)}")
    now = provenance.collect()["commit"], _digest(provenance.uncommitted_changes())
    began = [folder for folder, state in status.items() if state in ("finished", "interrupted")]
    others = Counter(_code_name(code) for folder in began if (code := _code_of(folder)) != now)
    if others:
        codes = ", ".join(f"{number} on {name}" for name, number in others.items())
        print(
            f"{others.total()} of them ran on code that differs from the current code "
            f"({_code_name(now)}): {codes}"
        )


def _code_of(folder: Path) -> tuple[str | None, str]:
    """The commit that a run was on, and the digest of its uncommitted changes, if any."""
    result = record.read_result(folder)
    return result.get("commit"), _digest(changes.read(folder, result) or "")


def _digest(diff: str) -> str:
    return hashlib.sha256(diff.encode(errors="surrogateescape")).hexdigest() if diff else ""


def _code_name(code: tuple[str | None, str]) -> str:
    commit, diff = code
    name = one_line(commit or "no commit")[:9]
    return f"{name}{' with uncommitted changes' if diff else ''}"


def wait_for(folders: Sequence[Path]) -> None:
    """Wait until no other process runs in `folders`: jobs may outlive the command of a sweep."""
    waiting = [folder for folder in folders if record.is_locked(folder)]
    if waiting:
        names = ", ".join(folder.name for folder in waiting)
        print(f"Waiting for jobs that run elsewhere: {names}. Ctrl-C ends only the waiting.")
    while any(map(record.is_locked, waiting)):
        time.sleep(1)


def has_failed(answer: JobReturn) -> bool:
    return answer.status == JobStatus.FAILED and not runs_elsewhere(answer)


def runs_elsewhere(answer: JobReturn) -> bool:
    """Whether another command had begun the job by the time that this one wanted to."""
    return isinstance(answer._return_value, record.InUse)


def has_reported(answer: JobReturn) -> bool:
    """Whether a job that ran in this process has already printed how it ended."""
    return answer.status != JobStatus.FAILED or isinstance(answer._return_value, RunFailed)


def outcome(name: str, answer: JobReturn) -> str:
    """How the job in the folder `name` ended, as a line to print."""
    returned = answer._return_value
    if runs_elsewhere(answer):
        return f"{name} is running elsewhere"
    if isinstance(returned, RunFailed):
        return f"{name} failed: {returned}"
    if has_failed(answer):  # before the run could record its reason
        return f"{name} failed: {_reason(answer)}"
    if isinstance(returned, float):
        return f"{name} finished: {returned:.2%} on validation"
    return f"{name} finished: {returned}"  # another function than script.py's, in a search


def _reason(answer: JobReturn) -> str:
    error = answer._return_value
    return str(error) if isinstance(error, RunFailed) else explain(error) or f"{described(error)}."


def packed(answer: JobReturn) -> dict[str, Any]:
    """The answer of a job as JSON has it, in which nothing runs when it is read."""
    if runs_elsewhere(answer):
        return {"elsewhere": _reason(answer)}
    if has_failed(answer):
        return {"failed": _reason(answer)}
    return {"returned": _plain(answer._return_value)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Sequence):
        return list(map(_plain, value))
    try:
        return float(value)  # a tensor, or a number of NumPy
    except (TypeError, ValueError):
        return str(value)


def unpacked(content: dict[str, Any]) -> JobReturn:
    """The answer that `packed` made JSON of."""
    if "elsewhere" in content:
        in_use = record.InUse(str(content["elsewhere"]))
        return JobReturn(status=JobStatus.FAILED, _return_value=in_use)
    if "failed" in content:
        return died(str(content["failed"]))
    return JobReturn(status=JobStatus.COMPLETED, _return_value=content.get("returned"))


def died(reason: str) -> JobReturn:
    """The answer of a job that ended without one."""
    return JobReturn(status=JobStatus.FAILED, _return_value=RunFailed(reason))


class Progress:
    """Counts the jobs of a sweep that run side by side, and estimates the time left."""

    def __init__(self, total: int):
        self.total, self.ended = total, 0
        self.started = time.monotonic()

    def line(self, outcome: str, running: int) -> str:
        """`3 of 8 (2 running, 4 min left): OUTCOME`, for a job that has just ended."""
        self.ended += 1
        seconds = (time.monotonic() - self.started) / self.ended * (self.total - self.ended)
        parts = [f"{running} running"] if running else []
        parts += [f"about {duration(seconds)} left"] if self.ended < self.total else []
        state = f" ({', '.join(parts)})" if parts else ""
        return f"{self.ended} of {self.total}{state}: {outcome}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
