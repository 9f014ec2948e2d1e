import threading
import time
from pathlib import Path

import filelock
import pytest

from lab import provenance, record


def test_changes_of_earlier_parts_of_a_run_are_kept(tmp_path, monkeypatch):
    for part, text in enumerate(["first", "first", "third", "fourth"]):
        monkeypatch.setattr(provenance, "uncommitted_changes", lambda text=text: text)
        record.write_changes(tmp_path, part)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "changes-2.diff": "first", "changes-3.diff": "third", "changes.diff": "fourth",
    }  # fmt: skip


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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\0"])
def test_a_result_that_is_not_a_json_object_is_damaged(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(record.RunFolderError, match=f"{tmp_path}.result.json is damaged"):
        record.read_result(tmp_path)
    assert record.status(tmp_path) == "damaged"
