"""Pictures decoded once, into one array of uint8 in a file, which later runs read.

The file is made again when the pictures change, is written whole or not at all, and is made by one
process, for which others wait.
"""

import atexit
import errno
import hashlib
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy
from tqdm import tqdm

from lab import files
from lab.errors import Refusal

PROJECT = Path(__file__).resolve().parent.parent
CHUNK = 256  # pictures in a job
VERSION = 1  # of `lab.decoding`: with another one, everything is decoded again
NAMED = 5  # pictures that cannot be decoded
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """The file of images `(N, C, H, W)`, the SHA-256 of its content, and why images are missing,
    by their rows."""

    path: Path
    sha256: str
    bad: dict[int, str]
    labels: list[int] | None = None


Fill = Callable[[Path, int, int], tuple[str, dict[int, str], list[int] | None]]


def decoded(
    folder: Path | None, fingerprint: str, count: int, channels: int, size: int, fill: Fill
) -> Decoded:
    """The images in `folder`, made by `fill` unless those with this fingerprint are there.

    `fill` gets a path, the offset of the images there and the size of one in bytes, and returns
    what `Decoded` holds of them. Without a folder that can be written to, the file is a temporary
    one, which ends with the process.
    """
    key = hashlib.sha256(f"{VERSION} {fingerprint} {count}".encode()).hexdigest()[:16]
    shape = (count, channels, size, size)
    if folder is None:
        return _make(_temporary(), key, shape, fill)
    if found := _found(folder, key):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        with suppress(filelock.Timeout):
            lock.acquire(timeout=1)
        if not lock.is_locked:
            log.info("waiting for another process, which is decoding these pictures")
            lock.acquire()
    except PermissionError:
        log.warning("%s cannot be written to: the pictures are decoded for this run only", folder)
        return _make(_temporary(), key, shape, fill)
    with lock:
        return _found(folder, key) or _make(folder, key, shape, fill)


def _temporary() -> Path:
    """A folder that is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="decoded-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _found(folder: Path, key: str) -> Decoded | None:
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index["key"] == key and (folder / f"{key}.npy").stat().st_size == index["bytes"]:
            bad = {int(row): reason for row, reason in index["bad"].items()}
            return Decoded(folder / f"{key}.npy", index["sha256"], bad, index["labels"])
    except (OSError, ValueError, KeyError):  # none, or not one of ours
        pass
    return None


def _make(folder: Path, key: str, shape: tuple[int, ...], fill: Fill) -> Decoded:
    for old in [*folder.glob("*.partial"), *folder.glob("*.npy")]:
        with suppress(PermissionError):  # Windows: another process has it open
            old.unlink()
    partial, path = folder / f"{key}.partial", folder / f"{key}.npy"
    try:
        array = numpy.lib.format.open_memmap(partial, "w+", numpy.uint8, shape)
        offset, size = array.offset, array.nbytes
        array.flush()
        del array
        if hasattr(os, "posix_fallocate"):  # find out now whether there is enough space
            with partial.open("r+b") as file:
                _reserve(file.fileno(), offset + size)
        sha256, bad, labels = fill(partial, offset, size // max(1, shape[0]))
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if isinstance(error, Refusal) or not error.strerror:
            raise
        needed = numpy.prod(shape, dtype=float) / 1e9
        raise OSError(
            f"The decoded pictures, {needed:.2g} GB, cannot be written to {folder} "
            f"({error.strerror}): free some space, or set data_dir to a folder that has it."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    index = {"key": key, "bytes": path.stat().st_size, "sha256": sha256, "labels": labels}
    files.write_json(folder / "index.json", index | {"bad": bad})
    return Decoded(path, sha256, bad, labels)


def _reserve(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems cannot
            raise


def fill_from_files(paths: Sequence[str], channels: int, size: int) -> Fill:
    """Decode these files in processes of their own, as many as there are cores."""

    def fill(target: Path, offset: int, item: int):
        jobs = [
            {
                "file": str(target), "offset": offset + start * item, "channels": channels,
                "size": size, "paths": list(paths[start : start + CHUNK]),
            }
            for start in range(0, len(paths), CHUNK)
        ]  # fmt: skip
        digest, bad = hashlib.sha256(), {}
        with _progress(len(paths)) as bar, _workers(min(cores(), len(jobs))) as answer:
            for number, (job, reply) in enumerate(zip(jobs, answer(jobs), strict=True)):
                digest.update(reply["sha256"].encode())
                bad |= {number * CHUNK + int(i): reason for i, reason in reply["bad"].items()}
                bar.update(len(job["paths"]))
        return digest.hexdigest(), bad, None

    return fill


def _progress(count: int) -> tqdm:
    return tqdm(total=count, desc="decoding pictures", unit="", leave=False, disable=None)


def cores() -> int:
    """The number of cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


@contextmanager
def _workers(count: int) -> Iterator[Callable[[list[dict]], Iterator[dict[str, Any]]]]:
    """A function that has jobs done by `count` processes and gives the answers in order.

    The processes end with their input: also when this process is killed.
    """
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
    idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
    pool, processes = ThreadPoolExecutor(max(1, count)), []
    with tempfile.TemporaryFile() as errors:

        def ask(job: dict[str, Any]) -> dict[str, Any]:
            process = idle.get()
            try:
                with suppress(BrokenPipeError):  # it has ended, so there is no answer either
                    process.stdin.write(json.dumps(job) + "\n")
                    process.stdin.flush()
                if not (line := process.stdout.readline()):
                    raise Refusal(_ended(process.wait(), errors))
                return json.loads(line)
            finally:
                idle.put(process)

        try:
            for _ in range(count):
                process = subprocess.Popen(
                    [sys.executable, "-m", "lab.decoding"], env=environment, encoding="utf-8",
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                )  # fmt: skip
                processes.append(process)
                idle.put(process)
            yield lambda jobs: pool.map(ask, jobs)
        finally:
            for process in processes:
                process.kill()
            pool.shutdown(cancel_futures=True)
            for process in processes:
                with suppress(BrokenPipeError):  # one that has ended
                    process.stdin.close()
                process.stdout.close()
                process.wait()


def _ended(code: int, errors) -> str:
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    why = f"signal {-code}, perhaps for lack of memory" if code < 0 else f"exit code {code}"
    return f"A process that decodes pictures has ended ({', '.join([why, *said])}): run it again."


def check_bad(names: Sequence[str], bad: dict[int, str], folder: Path, policy: str) -> None:
    """Name the pictures that cannot be decoded, in a warning or, unless the policy is to skip them,
    as a Refusal."""
    if not bad:
        return
    first = ", ".join(f"{names[row]} ({bad[row]})" for row in sorted(bad)[:NAMED])
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    what = f"{len(bad)} of {len(names)} pictures in {folder} cannot be decoded: {first}{more}"
    if policy != "skip":
        raise Refusal(f"{what}. Repair or remove them, or leave them out with on_bad_image=skip.")
    log.warning("%s. They are left out.", what)
