"""What the config of a run folder may contain. The folder may come from a stranger."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING

from lab import provenance, reading, references, schema
from lab.errors import ConfigError
from lab.escape import one_line

# The groups that name a class, and what each may name besides the classes of modules next to
# script.py and what config/ names there. Classes, never functions of a module. Of torchvision's
# datasets, those that read and check their files: others unpickle them, or open any path.
DATASETS = "MNIST|FashionMNIST|KMNIST|EMNIST|QMNIST|USPS|CIFAR10|CIFAR100"
ALLOWED_TARGETS = {
    "model": re.compile(r"models\.[A-Z]\w*"),
    "optimizer": re.compile(r"torch\.optim\.[A-Z]\w*"),
    "scheduler": re.compile(r"torch\.optim\.lr_scheduler\.[A-Z]\w*"),
    "dataset.source": re.compile(rf"sources\.[A-Z]\w*|torchvision\.datasets\.({DATASETS})"),
}
# Folders beside script.py whose classes are not part of an experiment.
NO_EXPERIMENT = ("lab", "sweeps", "hydra_plugins", "config", "tests", "benchmarks", "docs", "env")
PACKAGE = re.compile(r"\s*#\s*@package\s+(\S+)")
# Names and labels, which are not paths; the path `data_dir` of a run folder is never read.
NO_PATHS = ("name", "data_dir", "init_from", "dataset.classes[]")
ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:[/\\]|\\\\")  # also on Windows: C:\ and \\server
# Classes that were moved, by the name that older run folders have.
NEW_NAMES = {"datasets.Digits": "sources.Digits"}
LONGEST_TEXT = 5000  # characters of any value


def check_foreign(config: dict[str, Any], source: Path, trusted: bool = False) -> None:
    """Raises ConfigError for a config, read from `source`, that could do more than describe a run:
    name another class, call a resolver, choose a path, or grow beyond any memory.

    With `trusted`, only the keys are checked: the folder is the user's own.
    """
    known = {field.name for field in fields(schema.Config)}
    if unknown := sorted(map(str, config.keys() - known)):
        name = one_line(unknown[0])
        raise ConfigError(f"{source} is not the config of a run: {name} is not a key of one.")
    needed = {field.name for field in fields(schema.Config) if field.default == MISSING}
    if missing := sorted(needed - config.keys()):
        raise ConfigError(f"{source} is not the config of a run: {missing[0]} is missing.")
    if trusted:
        return
    for key, value in leaves_of(config):
        _check_value(key, value, source)
    # What references make of values and bring to other places, and what an escaped \${ becomes,
    # which Hydra resolves again when it builds a class.
    for key, value in leaves_of(references.resolved(config, source)):
        _check_value(key, value, source)


def _check_value(key: str, value: Any, source: Path) -> None:
    """Raises ConfigError for a class or a text that a run folder must not have at this key."""
    said = one_line(value)
    if key.endswith("_target_") and not is_allowed(value, key.removesuffix("._target_")):
        raise ConfigError(
            f"{source} names _target_={said} in {key.rpartition('.')[0]}, which a run folder "
            "must not do: it is neither a class that belongs there, of a module beside script.py "
            "for instance, nor named there by a file in config/. If you wrote the folder "
            "yourself, add trust=true."
        )
    if isinstance(value, str) and (what := _forbidden(key, value)):
        raise ConfigError(
            f"{source} says {key}={said!r:.200}, {what}, which a run folder must not do. If you "
            "wrote the folder yourself, add trust=true."
        )


def leaves_of(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config by their keys in full, those of a list by `key[]`."""
    if isinstance(node, dict) and not key.endswith("_target_"):
        for name, value in node.items():
            yield from leaves_of(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and not key.endswith("_target_"):
        for value in node:
            yield from leaves_of(value, f"{key}[]")
    else:
        yield key, node


def is_allowed(target: Any, key: str = "model") -> bool:
    """Whether a run folder may name `target` as the class of `key`: one of this project's and
    torch's classes of that kind, a class of a module beside script.py, or what a YAML file in
    config/ names there. An argument is not a class, except where such a file has one."""
    if not isinstance(target, str):
        return False
    module, _, name = target.rpartition(".")
    if module.partition(".")[0] in NO_EXPERIMENT:
        return False
    if key in ALLOWED_TARGETS and (
        ALLOWED_TARGETS[key].fullmatch(target) or defines_class(module, name)
    ):
        return True
    return (key, target) in named_in_config()


def _forbidden(key: str, text: str) -> str | None:
    """What a text of a config does that one from a stranger must not; None if nothing."""
    if len(text) > (references.LONGEST if "${" in text else LONGEST_TEXT):
        return "a text that is too long"
    if references.calls_resolver(text):
        return "which calls a resolver"
    if key in ("name", "data_dir") and ".." in Path(text).parts:
        return "a path that leads upwards"
    if key not in NO_PATHS and is_path(text):
        return "a path: those are for you to choose"
    return None


def is_path(text: str) -> bool:
    """Whether a text is a path that leads anywhere but into a given folder."""
    return ".." in re.split(r"[/\\]", text) or bool(ABSOLUTE.match(text))


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


def named_in_config() -> set[tuple[str, str]]:
    """The targets in the YAML files of config/ with their keys in full, as `leaves_of` writes them,
    except those of Hydra's own groups."""
    folder = provenance.PROJECT / "config"
    found: set[tuple[str, str]] = set()
    for path in folder.rglob("*.yaml"):
        group = path.relative_to(folder).parent
        if "hydra" in group.parts:
            continue
        try:
            text = path.read_text(encoding="utf-8")
            content = yaml.load(text, reading.Loader)
        except (OSError, ValueError, yaml.YAMLError):  # no config that could have been trained
            continue
        header = PACKAGE.match(text)
        place = header[1] if header else ".".join(group.parts)
        place = "" if place == "_global_" else place
        found |= {
            (key.removesuffix("._target_"), value)
            for key, value in leaves_of(content, place)
            if key.endswith("._target_") and isinstance(value, str)
        }
    return found


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
