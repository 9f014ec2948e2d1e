"""The git repository that a folder is in, and what is not committed there, in bounded size."""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from lab.errors import Refusal

# The limits of a diff. What is beyond them is listed instead.
MOST_BYTES = 10**6  # of a file
MOST_NEW = 200  # new files, those nearest to the top first
MOST_IN_ALL = 32 * 10**6  # bytes of all files together
# The limits of that list.
MOST_HASHED = 10**9  # bytes; larger files are told apart by the time of their last change
MOST_LISTED = 1000

# Variables that git sets for its hooks, or that a user sets for one command: they would lead to
# another repository or to another diff.
NOT_INHERITED = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"),
    *("GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
    *("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_LITERAL_PATHSPECS", "GIT_ICASE_PATHSPECS"),
)
# The user's settings must neither change a diff nor make git write into the repository.
SETTINGS = {
    "core.safecrlf": "false",
    "core.quotePath": "true",
    "core.attributesFile": os.devnull,
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.splitIndex": "false",
    "diff.autoRefreshIndex": "true",
    "diff.orderFile": os.devnull,
    "diff.indentHeuristic": "true",
    "diff.suppressBlankEmpty": "false",
}
# The bytes as they are, except on Windows, where git gives every text file of a working copy CRLF.
AS_IT_IS = () if os.name == "nt" else ("-c", "core.autocrlf=false")
PATCH = (
    *("--patch", "--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff"),
    *("--no-textconv", "--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3"),
    *("--inter-hunk-context=0", "--submodule=short", "--ignore-submodules=none"),
)


class GitError(Refusal):
    """git is not installed, or refuses; the message is its own."""


def git(folder: Path, *arguments: str, stdin: bytes = b"", **variables: str) -> bytes:
    """What git prints when it is run in `folder`. Raises GitError."""
    inherited = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
    settings = [word for pair in SETTINGS.items() for word in ("-c", "=".join(pair))]
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *settings, *arguments],
            cwd=folder, env=inherited | variables, input=stdin, capture_output=True,
        )  # fmt: skip
    except OSError as error:
        raise GitError(f"git cannot be run: {error}") from error
    if done.returncode:
        raise GitError(done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}")
    return done.stdout


def changes(folder: Path) -> str:
    """The diff between the commit and the working copy of the whole repository, new files included;
    empty if there is no difference or no repository.

    At the top of the repository, `git apply` on the commit reproduces the working copy, except for
    the files that the first lines of the diff list by size, SHA-256 and name: those beyond the
    limits above. The repository and its index are not touched.
    """
    try:
        top = Path(os.fsdecode(git(folder, "rev-parse", "--show-toplevel")).rstrip("\r\n"))
    except GitError:
        return ""
    left_out: list[str] = []
    try:
        commit = _commit(top)
        modified, deleted, new = _changed(top, commit)
        left_out = [*modified, *deleted, *new]
        chosen, too_much = _within_limits(top, modified | deleted, new)
        diff = _diff(top, commit, chosen, deleted)
    except (GitError, OSError) as error:  # OSError: no room for temporary files
        return _listed(top, left_out, " ".join(str(error).split()))
    if too_much:
        return _listed(top, too_much, "over the limits of size or number") + diff
    return diff


def _commit(top: Path) -> str:
    """The commit; the empty tree if there is none yet."""
    try:
        return git(top, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    except GitError:
        return git(top, "hash-object", "-t", "tree", "--stdin").decode().strip()


def _changed(top: Path, commit: str) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """The committed files that are modified and those that are deleted, with the size of what was
    committed, and the new files."""
    listed = ("--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-relative")
    raw = git(top, "diff", *listed, "--ignore-submodules=dirty", commit, "--").split(b"\0")
    lines = dict(zip(map(os.fsdecode, raw[1::2]), raw[::2], strict=False))  # one per name
    blobs = b"".join(line.split()[2] + b"\n" for line in lines.values())
    sizes = git(top, "cat-file", "--batch-check=%(objectsize)", stdin=blobs).split(b"\n")
    modified, deleted = {}, {}
    for (name, line), size in zip(lines.items(), sizes, strict=False):
        group = deleted if line.split()[4] == b"D" else modified
        group[name] = int(size) if size.isdigit() else 0  # a new file, a submodule
    others = git(top, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0")
    return modified, deleted, [os.fsdecode(name) for name in others if name]


def _within_limits(
    top: Path, committed: dict[str, int], new: list[str]
) -> tuple[list[str], list[str]]:
    """The names of the files that a diff shows, and of those that it leaves out."""
    nearest_first = sorted(new, key=lambda name: (name.count("/"), name))
    candidates = committed | dict.fromkeys(nearest_first[:MOST_NEW], 0)
    chosen: list[str] = []
    left_out: list[str] = []
    total = 0
    for name, before in candidates.items():
        path = top / name
        size = max(before, _size(path))
        is_small = size <= MOST_BYTES and total + size <= MOST_IN_ALL
        is_readable = os.access(path, os.R_OK) or not path.exists()
        if is_small and is_readable and not name.endswith("/"):  # a repository within this one
            chosen.append(name)
            total += size
        else:
            left_out.append(name)
    left_out += nearest_first[MOST_NEW:]
    return chosen, left_out


def _size(path: Path) -> int:
    return path.lstat().st_size if path.is_symlink() or path.exists() else 0


def _diff(top: Path, commit: str, chosen: Collection[str], deleted: Collection[str]) -> str:
    """The diff of the `chosen` files, by way of an index and an object store of its own."""
    if not chosen:
        return ""
    removed = [name for name in chosen if name in deleted]
    present = [name for name in chosen if name not in deleted]
    with tempfile.TemporaryDirectory() as scratch:
        objects = os.fsdecode(git(top, "rev-parse", "--git-path", "objects")).rstrip("\r\n")
        # In quotes, since the variable may hold several paths with a separator between them.
        store = json.dumps(str(top / objects), ensure_ascii=False)
        own = {
            "GIT_INDEX_FILE": str(Path(scratch, "index")),
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": store,
        }
        git(top, "read-tree", commit, **own)
        for names, flags in ((removed, ["--force-remove"]), (present, ["--add", "--remove"])):
            if not names:
                continue
            stdin = b"".join(os.fsencode(name) + b"\0" for name in names)
            update = ("update-index", *flags, "--replace", "-z", "--stdin")
            git(top, *AS_IT_IS, *update, stdin=stdin, **own)
        diff = git(top, "diff-index", "--cached", *PATCH, commit, "--", **own)
    return diff.decode(errors="surrogateescape")  # a file may hold any bytes


def _listed(top: Path, names: list[str], reason: str) -> str:
    """Comment lines, which `git apply` skips: size, SHA-256 and name of each file."""
    lines = [f"# Not in this diff, {reason}: bytes, SHA-256, name"]
    room = MOST_HASHED
    for name in names[:MOST_LISTED]:
        path = top / name
        size = _size(path)
        identity = _identity(path, size <= room)
        room -= size if size <= room else 0
        shown = name if name.isprintable() else json.dumps(name)
        lines.append(f"# {size} {identity} {shown}")
    if more := names[MOST_LISTED:]:
        lines.append(f"# and {len(more)} more files, {sum(_size(top / n) for n in more)} bytes")
    return "\n".join(lines) + "\n"


def _identity(path: Path, may_read: bool) -> str:
    if not os.path.lexists(path):
        return "deleted"
    if path.is_symlink() or not path.is_file():
        return "folder" if path.is_dir() else "special"
    try:
        if may_read:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        changed = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
        return f"changed-{changed.isoformat(timespec='seconds')}"
    except OSError:
        return "unreadable"
