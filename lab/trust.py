"""What the config of a run folder may contain. The folder may come from a stranger."""

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from lab import provenance
from lab.errors import ConfigError
from lab.schema import Config

# Classes, never functions of a module.
ALLOWED_TARGETS = re.compile(
    r"(models|sources|torch\.optim|torch\.optim\.lr_scheduler|torchvision\.datasets)\.[A-Z]\w*"
)
# Folders beside script.py whose classes are not part of an experiment.
NO_EXPERIMENT = ("lab", "sweeps", "hydra_plugins", "config", "tests", "benchmarks", "docs", "env")
TARGET = re.compile(r"^\s*_target_:\s*['\"]?([\w.]+)", re.MULTILINE)
RESOLVER = re.compile(r"(?<!\\)\$\{[^}]*:")  # a reference to another key has no colon
# Classes that were moved, by the name that older run folders have.
NEW_NAMES = {"datasets.Digits": "sources.Digits"}


def check_foreign(config: dict[str, Any], source: Path, trusted: bool = False) -> None:
    """Raises ConfigError for a config, read from `source`, that could do more than describe a run:
    name another class, call a resolver, or lead out of a folder.

    With `trusted`, only the keys are checked: the folder is the user's own.
    """
    known = {field.name for field in fields(Config)}
    if unknown := sorted(map(str, config.keys() - known)):
        raise ConfigError(f"{source} is not the config of a run: {unknown[0]} is not a key of one.")
    needed = {field.name for field in fields(Config) if field.default == MISSING}
    if missing := sorted(needed - config.keys()):
        raise ConfigError(f"{source} is not the config of a run: {missing[0]} is missing.")
    nodes: list[Any] = [] if trusted else [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            target = node.get("_target_")
            if target is not None and not is_allowed(str(target)):
                raise ConfigError(
                    f"{source} names _target_={target}, which a run folder must not: it is neither "
                    "a class of a module beside script.py nor named in config/. If you wrote the "
                    "folder yourself, add trust=true."
                )
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
        elif isinstance(node, str) and (RESOLVER.search(node) or ".." in Path(node).parts):
            raise ConfigError(
                f"{source} says {node!r}, which a run folder must not. If you wrote the folder "
                "yourself, add trust=true."
            )


def is_allowed(target: str) -> bool:
    """Whether a run folder may name `target`: one of this project's and torch's classes, a class of
    a module beside script.py, or what a YAML file in config/ names."""
    if ALLOWED_TARGETS.fullmatch(target):
        return True
    module, _, name = target.rpartition(".")
    if module.partition(".")[0] in NO_EXPERIMENT:
        return False
    return defines_class(module, name) or target in named_in_config()


def defines_class(module: str, name: str) -> bool:
    """Whether the file of a module beside script.py defines or imports a class of this name.

    The file is read, not run. An import counts if it leads to such a file.
    """
    path = provenance.PROJECT.joinpath(*module.split("."))
    files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    if not files or not all(part.isidentifier() for part in (*module.split("."), name)):
        return False
    try:
        tree = ast.parse(files[0].read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # it cannot be imported either
        return False
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: None if files[0].name == "__init__.py" else -1]
            package = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*package, *filter(None, [node.module])])
            for alias in node.names:
                if (alias.asname or alias.name) == name and source != module:
                    return defines_class(source, alias.name)
    return False


def named_in_config() -> set[str]:
    """The targets in the YAML files of config/, except those of Hydra's own groups."""
    folder = provenance.PROJECT / "config"
    paths = [
        path for path in folder.rglob("*.yaml") if "hydra" not in path.relative_to(folder).parts
    ]
    return {name for path in paths for name in TARGET.findall(path.read_text(encoding="utf-8"))}


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
