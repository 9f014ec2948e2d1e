"""Which trackers a resumed run has, and with which settings: those are the user's to choose.

A run folder may come from a stranger. It says which trackers the run had, by the names of files in
config/logger/. The classes, servers and projects to which the figures of a run are sent are those
of these files and of the command that resumes it.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lab import provenance, reading, record
from lab.errors import ConfigError
from lab.escape import one_line
from lab.hints import nearest

NONE = "none"  # the option without a tracker


def resumed(folder: Path, words: Sequence[str], is_trusted: bool) -> tuple[dict, list[str]]:
    """The `logger` of a run that is resumed with these overrides, and the other overrides.

    Raises ConfigError, naming the overrides that are missing, if the run was tracked with other
    settings than now.
    """
    recorded = record.read_config(folder).get("logger") or {}
    if not isinstance(recorded, dict):
        raise record.RunFolderError(f"{folder / 'config.yaml'} is damaged: logger is not a group.")
    others = [word for word in words if not word.startswith("logger=")]
    if chosen := [word for word in words if word.startswith("logger=")]:
        names = re.findall(r"[\w.-]+", chosen[-1].removeprefix("logger="))
        for name in names:
            _check(name, f"{chosen[-1]} is not allowed: {name}")
        return {name: _of_file(name) for name in names if name != NONE}, others
    if is_trusted:
        return recorded, others
    for name in recorded:
        said = one_line(name)
        _check(name, f"The run was tracked by logger={said}. Add another, or logger=none: {said}")
    given = {word.lstrip("+").partition("=")[0] for word in others}
    missing = [word for word in changed(recorded) if word.partition("=")[0] not in given]
    if missing:
        raise ConfigError(
            "A run folder does not choose where figures are sent, and this run was tracked with "
            f"other settings than now. If they are yours, add {one_line(shlex.join(missing))}; "
            "else give other values, or logger=none."
        )
    return {name: _of_file(name) for name in recorded}, others


def changed(logger: Mapping[str, Any]) -> list[str]:
    """The overrides that make these settings of trackers of what the files in config/ say now."""
    return [
        f"{key}={'null' if value is None else value}"
        for name in filter(logger.__contains__, _options())
        for key, value in _differences(logger[name], name)
    ]


def _differences(settings: Any, name: str) -> Iterator[tuple[str, Any]]:
    now = OmegaConf.to_container(OmegaConf.create(_of_file(name)), resolve=True)
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        if not str(key).startswith("_") and value != now.get(key):
            yield f"logger.{name}.{key}", value


def _options() -> list[str]:
    return sorted(path.stem for path in (provenance.PROJECT / "config/logger").glob("*.yaml"))


def _of_file(name: str) -> dict[str, Any]:
    return reading.read_yaml(provenance.PROJECT / "config/logger" / f"{name}.yaml")


def _check(name: object, sentence: str) -> None:
    """Raises ConfigError, which begins with a `sentence`, for a name that is not an option."""
    if name not in (options := _options()):
        raise ConfigError(
            f"{sentence} is none of {', '.join(options)}, the files in config/logger/."
            f"{nearest(name, options)}"
        )
