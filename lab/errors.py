"""Errors as sentences: what is wrong, what is allowed, what was probably meant."""

import difflib
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

OUT_OF_MEMORY = re.compile("out of memory|allocate memory|Storage size calculation overflowed")
CHOSEN_TWICE = re.compile(r"(\S+) appears more than once in the final defaults list")


class Refusal(ValueError):
    """An error that the user can correct; its message is one sentence that says how."""


class ConfigError(Refusal):
    """A config that cannot run; the message names the key, its value and what is allowed."""


class RunFailed(Exception):
    """A run that failed and has already reported why, in its log and in result.json."""


@contextmanager
def errors_as_sentences() -> Iterator[None]:
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
        print("(HYDRA_FULL_ERROR=1 shows the traceback.)", file=sys.stderr)
        sys.exit(1)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def explain(error: BaseException) -> str | None:
    """The sentence for an error that the user can correct; None for a bug."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return (
            f"{group}={option} does not exist: use one of {', '.join(error.options)}."
            f"{nearest(option, error.options)}"
        )
    if isinstance(error, HydraException) and (twice := CHOSEN_TWICE.match(str(error))):
        return (
            f"{twice[1]} is chosen twice, since a recipe (sweep=…, experiment=…) chooses it, too. "
            "Leave your own choice out."
        )
    if isinstance(error, Refusal | FloatingPointError):
        return str(error)
    if isinstance(error, MemoryError | RuntimeError) and OUT_OF_MEMORY.search(str(error)):
        reason = str(error).splitlines()[0]
        return f"Out of memory ({reason}): lower batch_size or the size of the model."
    for candidate in (error, error.__cause__, error.__context__):
        if isinstance(candidate, ConfigKeyError | ConfigAttributeError):
            return _explain_key(candidate, where=str(error))
        if isinstance(candidate, ValidationError) and candidate.full_key:
            return _explain_type(candidate)
    if isinstance(error, OSError) and error.strerror and not error.filename:
        return (
            f"{error.strerror}: a file of the run, in {Path.cwd()} unless hydra.run.dir says "
            "otherwise, could not be written. Free some space there, or give another folder."
        )
    if isinstance(error, OSError | HydraException):
        return str(error).partition("\n\nConfig search path")[0]
    return str(error).splitlines()[0] if isinstance(error, OmegaConfBaseException) else None


def _explain_key(error: OmegaConfBaseException, where: str) -> str:
    """`where` is Hydra's own message, which starts with the YAML file if the key is in one."""
    node = error.parent_node or {}
    known = [key for key in node if key != "hydra" and not str(key).startswith("_")]
    file = re.match(r"In '(.+?)'", where)
    place = f" (in config/{file[1]}.yaml)" if file else ""
    group = error.full_key.rpartition(".")[0] or "the config"
    sentence = (
        f"{error.full_key} is not a key of {group}{place}: "
        f"it has {', '.join(map(str, known))}.{nearest(error.key, known)}"
    )
    if "_target_" in node:
        sentence += f" To pass another argument of its class, write +{error.full_key}=…"
    return sentence


def _explain_type(error: ValidationError) -> str:
    words = {
        "Integer": "a whole number",
        "Float": "a number",
        "bool": "true or false",
        "ListConfig": "a list",
    }
    reason = str(error).splitlines()[0].rstrip(".")
    allowed = next((f"it must be {words[kind]}" for kind in words if kind in reason), reason)
    return f"{error.full_key}={error.value} is not allowed: {allowed}."


def nearest(word: object, options: Iterable[object]) -> str:
    close = difflib.get_close_matches(str(word), map(str, options), n=1)
    return f" Did you mean {close[0]}?" if close else ""
