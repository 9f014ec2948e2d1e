"""Where a result comes from: the command, the versions of packages, the code as git sees it."""

import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.errors import Refusal

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "scikit-learn")
COMMAND = "TRAINING_COMMAND"  # environment variable: what was typed, for the jobs of a sweep, too


@functools.cache  # all jobs of a sweep run the same code
def collect() -> dict[str, Any]:
    """What `result.json` says of it: command, versions, commit, and uncommitted changes."""
    return {
        "command": command(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(changed_files()),
    }


def remember_command(arguments: list[str]) -> None:
    """Keep the command line as it was typed, before `resume=FOLDER` is expanded for Hydra."""
    os.environ[COMMAND] = json.dumps(arguments)


def command() -> list[str]:
    """The command line as it was typed. Processes that a launcher starts inherit it."""
    script, *arguments = json.loads(os.environ.get(COMMAND, "null")) or sys.argv
    return [Path(script).name, *arguments]


def snapshot(folder: Path) -> Path:
    """Clone the repository as it is now, including uncommitted changes. Returns the path of the
    project in the clone.

    Raises Refusal outside a git repository.
    """
    top, prefix = git("rev-parse", "--show-toplevel"), git("rev-parse", "--show-prefix")
    if not git("rev-parse", "HEAD"):
        raise Refusal(f"{PROJECT} is not in a git repository with a commit that could be cloned.")
    subprocess.run(["git", "clone", "--quiet", top, str(folder)], check=True)
    changed = git("diff", "--name-only", "--no-renames", "-z", "HEAD") or ""
    new = git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", ":/") or ""
    for name in filter(None, (changed + new).split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        if Path(top, name).exists():
            shutil.copy2(Path(top, name), folder / name)
    return folder / prefix


def changed_files() -> str | None:
    """What git lists as uncommitted, including new files; None outside a repository."""
    # Untracked files count even if status.showUntrackedFiles is off in the user's git config.
    return git("status", "--porcelain", "--untracked-files=normal")


@functools.cache
def uncommitted_changes() -> str:
    """The diff between the commit and the project, including new files; empty if there is none.

    `git apply` on the commit reproduces the project.
    """
    new = (git("ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    parts = [git("diff", "--binary", "HEAD")]
    for name in filter(None, new):
        parts.append(git("diff", "--binary", "--no-index", "/dev/null", name, allowed=(0, 1)))
    # A binary patch must end in an empty line.
    return "".join(part + "\n\n" for part in parts if part)


def git(*arguments: str, allowed: tuple[int, ...] = (0,)) -> str | None:
    """What git prints, run in the project; None outside a repository or without git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True)
    except OSError:
        return None
    output = done.stdout.decode(errors="surrogateescape")  # a file may hold any bytes
    return output.strip("\n") if done.returncode in allowed else None
