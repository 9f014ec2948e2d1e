"""The run folder that a command names: by its path, or by the word `last`."""

import os
from pathlib import Path

from lab import files, record
from lab.reading import RunFolderError

LAST = "last"
DEEPEST = 16  # levels of folders that are searched for runs: runs/NAME/JOB has two below runs/
WRITTEN = ("result.json", "metrics.csv")  # when a run begins and ends, and after each epoch


def run_folder(name: str) -> Path:
    """The folder that `run=` or `resume=` names.

    `last` is the run in runs/ of the current folder that was written to last. Raises RunFolderError
    if there is none, or if a run folder of that name makes the word ambiguous.
    """
    if name.strip() != LAST:
        return files.located(name)
    root, own = files.located("runs"), files.located(LAST)
    found = newest(root)
    if (own / "result.json").is_file():
        other = f"for the newest run in runs/, write {found}" if found else "runs/ has no run"
        raise RunFolderError(
            f"last is the name of a run folder here: write ./last for it; {other}."
        )
    if found is None:
        raise RunFolderError(
            f"last is the newest run in {root}, and there is none: give the path of a run folder, "
            "or start the command in the folder in which the run was started."
        )
    return found


def newest(root: Path) -> Path | None:
    """The run folder below `root` that was written to last; of several, the last by name. Links are
    not followed."""
    found: list[tuple[int, Path]] = []
    left = [(root, 0)]
    while left:
        folder, depth = left.pop()
        try:
            with os.scandir(folder) as entries:
                own = {entry.name: entry for entry in entries}
                if own.keys() >= set(record.REQUIRED):
                    written = [
                        own[name].stat(follow_symlinks=False) for name in WRITTEN if name in own
                    ]
                    found.append((max(facts.st_mtime_ns for facts in written), folder))
                elif depth < DEEPEST:
                    below = [e for e in own.values() if e.is_dir(follow_symlinks=False)]
                    left += [(folder / entry.name, depth + 1) for entry in below]
        except OSError:  # it has just been deleted, or is somebody else's
            continue
    return max(found, default=(0, None))[1]
