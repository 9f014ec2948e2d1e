"""Where a result comes from: the command, the versions of packages, the code as git sees it."""

import functools
import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from lab import repository
from lab.errors import Refusal

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "scikit-learn")
_typed: list[str] = []


@functools.cache  # all jobs of a sweep run the same code
def collect() -> dict[str, Any]:
    """What `result.json` says of it: command, versions, commit, and uncommitted changes."""
    return {
        "command": command(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    } | _code()


def _code() -> dict[str, Any]:
    """The commit, and whether it is all of the code; null, with the reason, where git fails."""
    try:
        return {"dirty": bool(changed_files()), "commit": git("rev-parse", "HEAD")}
    except repository.GitError as error:
        return {"dirty": None, "commit": None, "git_error": " ".join(str(error).split())}


def remember_command(arguments: list[str]) -> None:
    """Keep the command line as it was typed, before `resume=FOLDER` is expanded for Hydra.

    A launcher hands it to its jobs, which call this function. It is not in an environment
    variable, which a command typed in the shell of a job would also find.
    """
    _typed[:] = arguments


def command() -> list[str]:
    """The command line as it was typed, also in the job of a sweep."""
    script, *arguments = _typed or sys.argv
    return [Path(script).name, *arguments]


def snapshot(folder: Path) -> Path:
    """Clone the repository as it is now, including uncommitted changes. Returns the path of the
    project in the clone.

    Raises Refusal outside a git repository.
    """
    top, prefix = git("rev-parse", "--show-toplevel"), git("rev-parse", "--show-prefix")
    if not git("rev-parse", "HEAD"):
        raise Refusal(f"{PROJECT} is not in a git repository with a commit that could be cloned.")
    repository.git(PROJECT, "clone", "--quiet", top, str(folder))
    listed = ("--name-only", "--no-renames", "--no-relative", "--no-ext-diff", "-z")
    changed = git("diff", *listed, "HEAD") or ""
    new = git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", ":/") or ""
    for name in filter(None, (changed + new).split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        if Path(top, name).exists():
            shutil.copy2(Path(top, name), folder / name)
    return folder / prefix


def changed_files() -> str:
    """What git lists as uncommitted, including new files. Raises GitError outside a repository."""
    # Untracked files count even if status.showUntrackedFiles is off in the user's git config.
    listed = repository.git(PROJECT, "status", "--porcelain", "--untracked-files=normal")
    return listed.decode(errors="surrogateescape").strip("\n")


@functools.cache
def uncommitted_changes() -> str:
    """The diff between the commit and the working copy: see `repository.changes`."""
    return repository.changes(PROJECT)


def git(*arguments: str) -> str | None:
    """What git prints, run in the project; None outside a repository or without git."""
    try:
        output = repository.git(PROJECT, *arguments)
    except repository.GitError:
        return None
    return output.decode(errors="surrogateescape").strip("\n")
