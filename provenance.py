"""Where a result comes from: the command, the versions, and the code as git knows it."""

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

from config.errors import Refusal

PROJECT = Path(__file__).resolve().parent
PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "scikit-learn")
TYPED = json.dumps(sys.argv)  # kept at the start: script.py spells resume=FOLDER out for Hydra


@functools.cache  # the second job of a sweep runs the same code
def collect() -> dict[str, Any]:
    """What `result.json` says of it: command, versions, commit and whether it was changed since."""
    return {
        "command": _command(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(changed_files()),
    }


def _command() -> list[str]:
    """What was typed; a launcher that starts processes hands it on to them."""
    script, *arguments = json.loads(os.environ.get("SWEEP_COMMAND", TYPED))
    return [Path(script).name, *arguments]


def snapshot(folder: Path) -> Path:
    """Clone the repository as it is now, uncommitted changes included. Returns the project in it.

    Raises Refusal outside a git repository.
    """
    top, prefix = git("rev-parse", "--show-toplevel"), git("rev-parse", "--show-prefix")
    if not git("rev-parse", "HEAD"):
        raise Refusal(f"{PROJECT} is not in a git repository with a commit to make a copy of.")
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
    """What git lists as not committed, new files included; None outside a repository."""
    return git("status", "--porcelain", "--untracked-files=normal")  # whatever the user told git


@functools.cache
def uncommitted_changes() -> str:
    """The diff of the project to its commit, new files included; empty where there is none.

    `git apply` makes the same files of it.
    """
    new = (git("ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    parts = [git("diff", "--binary", "HEAD")]
    for name in filter(None, new):
        parts.append(git("diff", "--binary", "--no-index", "/dev/null", name, allowed=(0, 1)))
    return "".join(part + "\n\n" for part in parts if part)  # a binary patch ends in an empty line


def git(*arguments: str, allowed: tuple[int, ...] = (0,)) -> str | None:
    """What git prints about the project; None outside a repository or without git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True)
    except OSError:
        return None
    output = done.stdout.decode(errors="surrogateescape")  # a file may hold any bytes
    return output.strip("\n") if done.returncode in allowed else None
