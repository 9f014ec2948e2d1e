"""Where an exception comes from: its cause, the line that raised it, and whose code that is."""

import linecache
import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lab.extras import how_to_install

PROJECT = Path(__file__).resolve().parent.parent
# Folders of code that nobody has to edit for their own experiment: bugs there are ours.
OURS = ("lab", "sweeps", "hydra_plugins", "tests")
COMPOSERS = ("hydra", "omegaconf", "antlr4", "yaml")  # what they raise is about a config
STDLIB = Path(os.__file__).resolve().parent
# What to do about messages of torch that only say what happened.
ADVICE = {
    r"Module\.__init__\(\) call": "Call super().__init__() first in the constructor",
    r"Expected more than 1 value per channel": "Batch norm needs two images per batch: set "
    "batch_size and limit to 2 or more",
}


def root(error: BaseException) -> BaseException:
    """The exception that Hydra has wrapped, or `error` itself."""
    while error.__cause__ is not None and is_raised_in(error, "hydra"):
        error = error.__cause__
    return error


def described(error: BaseException) -> str:
    """What happened, why, and where in the user's own code, without a full stop at the end.

    `NameError: name 'nn' is not defined (models.py:34: self.head = nn.Linear(3, 4))`
    """
    text = _titled(error)
    if (cause := error.__cause__) is not None and str(cause) not in text:
        text += f", caused by {_titled(cause)}"
    if where := place(error):
        text += f" ({where})"
    advice = next((advice for found, advice in ADVICE.items() if re.search(found, text)), None)
    if isinstance(error, ModuleNotFoundError) and (command := how_to_install(error.name)):
        advice = f"It is optional: {command}"
    return f"{text}. {advice}" if advice else text


def _titled(error: BaseException) -> str:
    """The message of an exception on one line; with the name of its class unless it is a
    ValueError, whose messages are sentences more often than not."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    text = text.rstrip(".")[:500]
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str | None:
    """`models.py:34: self.head = nn.Linear(3, 4)`, the innermost line of the user's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return _shown(error.filename, error.lineno or 0, error.text or "")
    if is_raised_in(error, *COMPOSERS):  # about a config, not about code
        return None
    for frame, line in reversed(frames(error)):
        if _is_own(path := frame.f_code.co_filename):
            return _shown(path, line, linecache.getline(path, line))
    return None


def is_bug(error: BaseException) -> bool:
    """Whether our own code, or a library that it has called, raised the exception; true also if it
    comes from another process, without its calls."""
    if is_raised_in(error, *COMPOSERS):
        return False
    for frame, _ in reversed(frames(error)):
        if not _is_library(path := frame.f_code.co_filename):
            return not _is_own(path)
    return not frames(error)


def is_raised_in(error: BaseException, *packages: str) -> bool:
    """Whether one of these packages raised the exception, or what it called of Python's library."""
    for frame, _ in reversed(frames(error)):
        if not _is_pythons(frame.f_code.co_filename):
            return frame.f_globals.get("__name__", "").split(".")[0] in packages
    return False


def part_of(error: BaseException, parts: Mapping[str, Any]) -> str | None:
    """The name of the one of `parts` among whose methods the exception was raised."""
    for frame, _ in reversed(frames(error)):
        if (owner := frame.f_locals.get("self")) is not None:
            for name, part in parts.items():
                if part is owner:
                    return name
        if not _is_library(path := frame.f_code.co_filename) and not _is_own(path):
            return None  # raised on behalf of our own code
    return None


def frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The calls that led to the exception, the innermost last, with their lines."""
    return list(traceback.walk_tb(error.__traceback__))


def _is_library(file: str) -> bool:
    return _is_installed(file) or _is_pythons(file)


def _is_installed(file: str) -> bool:
    return bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _is_pythons(file: str) -> bool:
    """Whether a file is of Python's library, or no file at all, like `<string>`."""
    return not Path(file).exists() or (STDLIB in Path(file).parents and not _is_installed(file))


def _is_own(file: str) -> bool:
    """Whether the user may have written the file."""
    ours = any(PROJECT / folder in Path(file).resolve().parents for folder in OURS)
    return not ours and not _is_library(file)


def _shown(file: str, line: int, code: str) -> str:
    path = Path(file).resolve()
    name = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    return f"{name}:{line}: {code.strip()}" if code.strip() else f"{name}:{line}"
