"""What the config of a run folder may contain. The folder may come from a stranger."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from lab.errors import ConfigError
from lab.schema import Config

# Classes, never functions of a module.
ALLOWED_TARGETS = re.compile(
    r"(models|sources|torch\.optim|torch\.optim\.lr_scheduler|torchvision\.datasets)\.[A-Z]\w*"
)
REFERENCE = re.compile(r"\$\{[a-z_]+(\.[a-z_]+)*\}")  # to another key; no resolver, no path
# Classes that were moved, by the name that older run folders have.
NEW_NAMES = {"datasets.Digits": "sources.Digits"}


def check_foreign(config: dict[str, Any], source: Path) -> None:
    """Raises ConfigError for a config, read from `source`, that could do more than describe a run:
    name another class, call a resolver, or lead out of a folder."""
    known = {field.name for field in fields(Config)}
    if unknown := sorted(map(str, config.keys() - known)):
        raise ConfigError(f"{source} is not the config of a run: {unknown[0]} is not a key of one.")
    needed = {field.name for field in fields(Config) if field.default == MISSING}
    if missing := sorted(needed - config.keys()):
        raise ConfigError(f"{source} is not the config of a run: {missing[0]} is missing.")
    nodes: list[Any] = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            target = node.get("_target_")
            if target is not None and not ALLOWED_TARGETS.fullmatch(str(target)):
                raise ConfigError(f"{source} names _target_={target}, which a run folder must not.")
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
        elif isinstance(node, str) and not _is_plain(node):
            raise ConfigError(f"{source} says {node!r}, which a run folder must not.")


def _is_plain(text: str) -> bool:
    """Whether a string neither calls a resolver nor leads out of a folder."""
    return bool(REFERENCE.fullmatch(text)) or ("${" not in text and ".." not in Path(text).parts)


def with_current_names(node: Any) -> Any:
    """A copy of a config in which classes that were moved have their new names."""
    if isinstance(node, dict):
        return {
            key: NEW_NAMES.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else with_current_names(value)
            for key, value in node.items()
        }
    return node
