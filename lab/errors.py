"""Errors as sentences: what is wrong, what is allowed, what was probably meant."""

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from lab import composition, ranks
from lab.cause import described, is_bug, root
from lab.hints import nearest, unknown_key
from lab.terminal import unbreakable_output

OUT_OF_MEMORY = re.compile("out of memory|allocate memory|Storage size calculation overflowed")
HINT = "(HYDRA_FULL_ERROR=1 shows the traceback.)"


class Refusal(ValueError):
    """An error that the user can correct; its message is one sentence that says how."""


class ConfigError(Refusal):
    """A config that cannot run; the message names the key, its value and what is allowed."""


class PeerFailed(Refusal):
    """Another process of the run has failed, or was killed; the message says what is known."""


class RunFailed(Exception):
    """A run that failed and has already reported why, in its log and in result.json."""


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """What an entry point runs in: output that cannot fail, and sentences instead of tracebacks."""
    with ranks.ending_together(), unbreakable_output(), ranks.silence(), _sentences():
        yield


@contextmanager
def _sentences() -> Iterator[None]:
    """End a command that is refused with a sentence and exit code 1 instead of a traceback.

    A run that fails has already reported its reason and raises RunFailed, which prints nothing.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":  # Hydra's own switch for tracebacks
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # without it, Hydra prints the error itself and exits
    try:
        yield
    except RunFailed:
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        print(explain(error) or f"{type(error).__name__}: {error}", file=sys.stderr)
        print(HINT, file=sys.stderr)
        sys.exit(1)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def explain(error: BaseException) -> str | None:
    """The sentence for an error that a config, a class named by it or a file has provoked; None for
    a bug of this project."""
    if not _has_current_folder():
        return "The current folder no longer exists: change to another one (cd)."
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for candidate in causes:
        if isinstance(candidate, Refusal | FloatingPointError):
            return str(candidate)
        if OUT_OF_MEMORY.search(str(candidate)) or isinstance(candidate, MemoryError):
            reason = str(candidate).partition("\n")[0] or "MemoryError"
            return f"Out of memory ({reason}): lower batch_size or the size of the model."
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return (
            f"{group}={option} does not exist: use one of {', '.join(error.options)}."
            f"{nearest(option, error.options)}"
        )
    if sentence := composition.explain(error, causes):
        return sentence
    for candidate in (*causes, error.__context__):
        if isinstance(candidate, ConfigKeyError | ConfigAttributeError):
            headless = composition.without_header(str(candidate.key), where=str(error))
            return headless or _explain_key(candidate, where=str(error))
        if isinstance(candidate, ValidationError) and candidate.full_key not in (None, ""):
            return composition.explain_type(candidate, where=str(error))
    error = root(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return composition.on_one_line(error)
    if isinstance(error, OSError):
        return _explain_os_error(error) if error.strerror else str(error)  # a sentence of ours
    return None if is_bug(error) else f"{described(error)}."


def _has_current_folder() -> bool:
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


def _explain_os_error(error: OSError) -> str:
    """The sentence for what the operating system refuses, which names the place and another one."""
    here = Path.cwd()
    if not isinstance(error.filename, str | bytes):
        return (
            f"{error.strerror}: a file of the run, in {here} unless hydra.run.dir says "
            "otherwise, could not be written. Free some space there, or give another folder."
        )
    name = os.fsdecode(error.filename)
    if error.errno == errno.ENAMETOOLONG:
        return (
            f"{name:.60}… is too long: the name of a file or folder has at most 255 bytes. Give "
            "a shorter one."
        )
    return (
        f"{here / name} cannot be read or written ({error.strerror}): start the command in a "
        "folder that you may write to, or change the permissions."
    )


def _explain_key(error: OmegaConfBaseException, where: str) -> str:
    """`where` is Hydra's own message: it has the key as typed, or the YAML file that it is in."""
    if error.parent_node is None:  # raised by somebody's own code
        return str(error).partition("\n")[0]
    file = re.match(r"In '(.+?)'", where)
    typed = re.search(r"Could not override '(.+?)'", where)
    key = typed[1] if typed and typed[1].startswith(error.full_key) else error.full_key
    place = f" (in config/{file[1]}.yaml)" if file else ""
    return unknown_key(key, error.parent_node._get_root(), place)
