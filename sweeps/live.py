"""Whether the command of a sweep is still running, for those who look at its folder.

Several commands may run the jobs of one sweep, so each holds a shared lock, which another process
notices by asking for an exclusive one. The lock is gone when its process is, however that ended.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where nobody is noticed
    fcntl = None

from lab import files, reading

NAME = ".sweep"
TRIES = 20  # in a fifth of a second: whoever asks holds the lock for an instant


@contextmanager
def sweeping(folder: Path, count: int) -> Iterator[None]:
    """Tell others that this command runs the jobs of a sweep, `count` in all, in `folder`."""
    with open(folder / NAME, "ab", opener=files.regular) as file:
        for _ in range(TRIES if fcntl else 0):
            with suppress(OSError):  # held by whoever asks; or there are no locks here
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        file.truncate(0)
        file.write(b"%d\n" % count)
        file.flush()
        yield


def is_swept(folder: Path) -> bool:
    """Whether a command runs the jobs of the sweep in `folder`."""
    if fcntl is None or not os.path.lexists(folder / NAME):
        return False
    with suppress(reading.RunFolderError), reading.opened(folder / NAME) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def places(folders: Iterable[Path], found: Iterable[dict[str, Any]]) -> dict[Path, int]:
    """The folders that may be those of sweeps, and how many of the runs each has."""
    return dict.fromkeys(folders, 0) | Counter(run["folder"].parent for run in found)


def is_live(folders: Iterable[Path], found: Sequence[dict[str, Any]]) -> bool:
    """Whether a run is running, or the command of a sweep, which starts another one in a moment."""
    is_running = any(run["status"] == "running" for run in found)
    return is_running or any(map(is_swept, places(folders, found)))


def expected(folder: Path) -> int:
    """How many jobs the last command of the sweep has; 0 where there was none."""
    with suppress(reading.RunFolderError, ValueError):
        return max(0, int(reading.read_text(folder / NAME, 20)))
    return 0
