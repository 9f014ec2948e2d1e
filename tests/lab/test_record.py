import errno
import os
import threading
import time
from functools import partial
from pathlib import Path

import filelock
import pytest

from lab import files, record
from lab.errors import Refusal


def test_a_lock_is_exclusive_until_it_is_released(tmp_path):
    for _ in range(2):
        with record.locked(Path(tmp_path)):
            pass
    refused = pytest.raises(record.RunFolderError, match="is in use")
    with record.locked(tmp_path), refused, record.locked(tmp_path):
        pass


def test_a_lock_stays_exclusive_when_its_file_is_deleted_while_another_thread_waits(tmp_path):
    held = threading.Barrier(2, timeout=5)

    def hold() -> None:
        with record.locked(tmp_path):
            held.wait()
            time.sleep(0.2)

    first = threading.Thread(target=hold)
    first.start()
    held.wait()
    refused = pytest.raises(record.RunFolderError)
    # The second waits for the lock file that the first deletes on release.
    with record.locked(tmp_path, patience=5), refused, record.locked(tmp_path, patience=0):
        pass
    first.join()
    with record.locked(tmp_path):
        pass


def test_a_lock_is_released_where_an_open_file_cannot_be_deleted(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "The file is being used by another process", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)  # as on Windows
    refused = pytest.raises(record.RunFolderError, match="is in use")
    for _ in range(2):
        with record.locked(tmp_path), refused, record.locked(tmp_path, patience=0):
            pass


def test_a_briefly_held_lock_is_waited_for(tmp_path):
    lock = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    with record.locked(tmp_path):
        pass


def running(folder: Path, lock: bool) -> Path:
    """A run folder that says that its run is running, with a lock file if `lock`."""
    files.write_json(folder / "result.json", {"status": "running", "overrides": []})
    if lock:
        (folder / ".lock").touch()
    return folder


@pytest.mark.parametrize("lock", [False, True])
def test_looking_at_a_run_that_was_killed_changes_nothing(tmp_path, lock):
    before = sorted(running(tmp_path, lock).iterdir())
    seen = set()

    def look() -> None:
        seen.update(record.status(tmp_path) for _ in range(200))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"interrupted"}  # nor do those who look take each other for the run
    assert sorted(tmp_path.iterdir()) == before
    with record.locked(tmp_path):
        assert record.status(tmp_path) == "running"
    assert record.status(tmp_path) == "interrupted"
    assert not (tmp_path / ".lock").exists()


def test_a_lock_file_counts_as_locked_where_there_are_no_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(record.fcntl, "flock", refuse)
    assert record.status(running(tmp_path, lock=False)) == "interrupted"
    assert record.status(running(tmp_path, lock=True)) == "running"


def test_a_run_in_an_unwritable_folder_does_not_run_for_ever(tmp_path, monkeypatch):
    running(tmp_path, lock=True)
    open_file = Path.open

    def unwritable(path, mode="r", *rest, **more):
        if mode not in ("r", "rb"):
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", unwritable)  # the tests may run as root
    assert record.status(tmp_path) == "interrupted"


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_a_lock_file_that_is_none_is_refused(tmp_path, kind):
    lock, elsewhere = tmp_path / ".lock", tmp_path / "elsewhere"
    make = {"folder": lock.mkdir, "pipe": partial(os.mkfifo, lock)}
    make.get(kind, partial(lock.symlink_to, elsewhere))()
    assert record.status(running(tmp_path, lock=False)) == "damaged"
    with pytest.raises(Refusal, match=r"\.lock is .*: remove it"), record.locked(tmp_path):
        pass
    assert not elsewhere.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\0"])
def test_a_result_that_is_not_a_json_object_is_damaged(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(record.RunFolderError, match=f"{tmp_path}.result.json is damaged"):
        record.read_result(tmp_path)
    assert record.status(tmp_path) == "damaged"
