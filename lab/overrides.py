"""One override: names and paths are taken as they are typed.

Hydra's grammar would refuse =, ~, quotes, parentheses and accents in them, and the folders of a
sweep have = and , in their names.
"""

import os
import re
from pathlib import Path

from lab.errors import ConfigError

# Keys whose values are names or paths.
NAMES = ("name", "images", "run", "data_dir", "init_from", "export", "report", "predictions")
NAMES += ("hydra.run.dir", "hydra.sweep.dir")
QUOTED = re.compile(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""")  # as Hydra quotes
LIST_ITEM = re.compile(rf"\s*({QUOTED.pattern}|[^,]*?)\s*(,|$)")
FUNCTION = re.compile(r"(choice|shuffle|sort|tag)\(.*\)")  # of Hydra, for sweeps
EMPTY_FOLDER = re.compile(r"[+]*hydra\.(run|sweep)\.dir=(|null|\s*''|\s*\"\")\s*")


def quoted(text: str | Path) -> str:
    """A name as a value that Hydra takes literally. Raises ConfigError if that is impossible."""
    if "${" in str(text):
        raise ConfigError(f"{text} has ${{ in its name, which Hydra would interpolate: rename it.")
    return escaped(str(text))


def escaped(text: str) -> str:
    """A text as a quoted value: Hydra changes nothing in it but interpolations."""
    # Within quotes, only quotes and the backslashes before them have to be escaped.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def literal(word: str, is_sweep: bool) -> str:
    """An override of NAMES, its value quoted so that Hydra takes it literally.

    null, what is quoted already, interpolations and, in a sweep, several values keep their meaning.
    """
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if EMPTY_FOLDER.fullmatch(word):
        raise ConfigError(f"{word} is not allowed: it must name a folder, as {key}=runs/mine does.")
    if name in NAMES and equals and not value.strip():
        raise ConfigError(f"{word} is empty: give a value, or leave it out.")
    if name not in NAMES or not equals or value == "null":
        return word
    if name == "images":
        if value.startswith("[") and value.endswith("]"):
            return f"{key}=[{','.join(map(_quoted_once, _items(value[1:-1])))}]"
        if "," not in value or os.path.exists(value):
            return f"{key}={_quoted_once(value)}"
        return f"{key}=[{','.join(map(_quoted_once, _items(value)))}]"
    if name == "run":
        return f"{key}={quoted(value)}"
    if is_sweep and FUNCTION.fullmatch(value):
        return word
    values = _items(value) if is_sweep else [value]
    if name.startswith("hydra."):  # the others are expanded where they are used
        values = list(map(os.path.expanduser, values))
    return f"{key}={','.join(v if QUOTED.fullmatch(v) else escaped(v) for v in values)}"


def _items(text: str) -> list[str]:
    """The parts of a list, between commas that are not within quotes."""
    items = [match[1] for match in LIST_ITEM.finditer(text)]
    return [item for item in items if item]


def _quoted_once(item: str) -> str:
    return item if QUOTED.fullmatch(item) else quoted(item)


def key_of(override: str) -> str:
    return re.split("[=@]", override.lstrip("+~"))[0]
