"""Files that somebody else may have written: regular files alone, up to a size, as plain data.

Opening a named pipe waits for ever, /dev/zero has no end, and a few bytes of YAML with aliases
stand for gigabytes. So every file of a run or sweep folder is opened here.
"""

import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from omegaconf._utils import get_yaml_loader

from lab import memory
from lab.errors import Refusal

MOST = 2**20  # bytes of a config or a result; those of a run have a few thousand
DEEPEST = 20  # levels of a config or a result
MOST_NODES = 50_000  # keys, values and levels of a config: more take OmegaConf seconds
MOST_PICKLED = 32 * MOST  # bytes of what a checkpoint holds besides tensors
MOST_VALUES = 2**20  # of what a checkpoint holds besides the numbers in tensors
FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
FLAGS |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)  # not on Windows
KINDS = {
    stat.S_ISLNK: "a link, which could lead out of the folder",
    stat.S_ISDIR: "a folder, but must be a file",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
}


class RunFolderError(Refusal):
    """A folder that is not a run folder, or that cannot be used now; the message says why."""


class Loader(yaml.CSafeLoader):
    """YAML as OmegaConf reads it (1e-3 is a number, a date is text), but by the parser in C."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers


def opened(path: Path, most: int | None = MOST) -> BinaryIO:
    """A file, open for reading in binary. Raises RunFolderError if it does not exist, is anything
    but a regular file, or has more than `most` bytes."""
    try:
        check_regular(path, os.lstat(path))
        file = os.fdopen(os.open(path, FLAGS), "rb")
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise RunFolderError(f"{path} {reason}: restore it, or make it readable.") from error
    found = os.fstat(file.fileno())  # another file may be there by now
    try:
        check_regular(path, found)
        if most is not None and found.st_size > most:
            raise RunFolderError(
                f"{path} is damaged: it has {found.st_size} bytes, and may have {most}."
            )
    except RunFolderError:
        file.close()
        raise
    return file


def check_regular(path: Path, found: os.stat_result) -> None:
    """Raises RunFolderError for anything but a regular file."""
    if not stat.S_ISREG(found.st_mode):
        kind = next((kind for is_kind, kind in KINDS.items() if is_kind(found.st_mode)), "a device")
        raise RunFolderError(f"{path} is {kind}: remove it.")


def read_bytes(path: Path, most: int = MOST) -> bytes:
    """The content of a file. Raises RunFolderError, as `opened` does."""
    with opened(path, most) as file:
        content = file.read(most + 1)  # it may grow meanwhile
    if len(content) > most:
        raise RunFolderError(f"{path} is damaged: it has more than {most} bytes.")
    return content


def read_text(path: Path, most: int = MOST) -> str:
    """The content of a file in UTF-8. Raises RunFolderError."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{path} is damaged: it is not text in UTF-8.") from error


def read_json(path: Path, most: int = MOST) -> dict[str, Any]:
    """A JSON object. Raises RunFolderError for anything else."""
    return _mapping(path, "JSON", json.loads, most)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file without aliases and tags. Raises RunFolderError for anything else:
    what an alias or a tag stands for can be larger than any memory."""
    return _mapping(path, "YAML", parse_yaml, MOST)


def _mapping(path: Path, kind: str, parse: Callable[[str], Any], most: int) -> dict[str, Any]:
    text = read_text(path, most)
    try:
        content = parse(text)
    except Exception as error:  # whatever a damaged or hostile file provokes
        reason = f": {error}" if isinstance(error, Refusal) else ""
        raise RunFolderError(f"{path} is damaged: it cannot be read as {kind}{reason}.") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} is damaged: it holds no keys.")
    if any(depth > DEEPEST for depth, _ in nodes(content)):
        raise RunFolderError(f"{path} is damaged: it has more than {DEEPEST} levels.")
    return content


def parse_yaml(text: str) -> Any:
    """What YAML without aliases and tags says. Raises Refusal for those and for too many values or
    levels, and the parser's own errors."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader)):
        if number > MOST_NODES:
            raise Refusal("it has more values than any config of a run")
        if getattr(event, "anchor", None):
            raise Refusal(f"it has the alias {event.anchor}, which no config of a run has")
        if tag := getattr(event, "tag", None):
            raise Refusal(f"it has the tag {tag}, which no config of a run has")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise Refusal(f"it has more than {DEEPEST} levels")
    content = yaml.load(text, Loader)
    return {} if content is None else content  # an empty file


def nodes(content: Any) -> Iterator[tuple[int, Any]]:
    """All values in dictionaries and lists, and these themselves, with their depth. What is in
    several places counts in each, and what is too deep is not entered."""
    left = [(0, content)]
    while left:
        depth, node = left.pop()
        yield depth, node
        if depth <= DEEPEST and isinstance(node, dict | list | tuple):
            values = node.values() if isinstance(node, dict) else node
            left += [(depth + 1, value) for value in values]


@contextmanager
def checkpoint(path: Path) -> Iterator[BinaryIO]:
    """A checkpoint file, open for reading. Raises RunFolderError if it could fill the memory."""
    with opened(path, memory.total()) as file:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
        size = os.fstat(file.fileno()).st_size
        pickled = sum(record.file_size for record in records if record.filename.endswith(".pkl"))
        # torch.save compresses nothing, so a record is as long in memory as it is in the file.
        if sum(record.file_size for record in records) > size or pickled > MOST_PICKLED:
            raise RunFolderError(f"{path} is damaged: it is larger in memory than in the file.")
        file.seek(0)
        yield file


def check_size(content: Any) -> None:
    """Raises RunFolderError for a checkpoint that has more values than any has: they may be few in
    the file, each in thousands of places."""
    for number, (depth, _) in enumerate(nodes(content)):
        if depth > DEEPEST or number > MOST_VALUES:
            raise RunFolderError("the checkpoint has too many values.")


def check_entries(folder: Path, files: tuple[str, ...] = (), folders: tuple[str, ...] = ()) -> None:
    """Raises RunFolderError for a link, a pipe or a device in the folder, through which files could
    be written elsewhere, or which could be waited for; and where one of `files` is no file, or one
    of `folders`, whose entries are checked, too, no folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                is_file = entry.is_file(follow_symlinks=False)
                if not is_file and (not is_folder or entry.name in files):
                    check_regular(folder / entry.name, entry.stat(follow_symlinks=False))
                if entry.name in folders:
                    path = folder / entry.name
                    if not is_folder:
                        raise RunFolderError(f"{path} is a file, but must be a folder: remove it.")
                    check_entries(path)
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be read ({error.strerror}).") from error
