import json
import os
import threading
import time
from pathlib import Path

import filelock
import pytest

import provenance
import record


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "metrics.csv"
    record.write_csv(path, [{"epoch": 1, "loss": 0.5}])
    record.write_csv(path, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert path.read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_is_named_and_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    record.write_json(path, {"epoch": 1})

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"result.json could not be written \(Permission denied\)"):
        record.write_json(path, {"epoch": 2})
    assert json.loads(path.read_text()) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_the_changes_of_an_earlier_part_are_kept(tmp_path, monkeypatch):
    for part, text in enumerate(["first", "first", "third", "fourth"]):
        monkeypatch.setattr(provenance, "uncommitted_changes", lambda text=text: text)
        record.write_changes(tmp_path, part)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "changes-2.diff": "first", "changes-3.diff": "third", "changes.diff": "fourth",
    }  # fmt: skip


def test_a_lock_is_given_back(tmp_path):
    for _ in range(2):
        with record.locked(Path(tmp_path)):
            pass
    refused = pytest.raises(record.RunFolderError, match="is in use")
    with record.locked(tmp_path), refused, record.locked(tmp_path):
        pass


def test_a_lock_leaves_nothing_behind_and_who_waited_for_it_holds_it_alone(tmp_path):
    held = threading.Barrier(2, timeout=5)

    def hold() -> None:
        with record.locked(tmp_path):
            held.wait()
            time.sleep(0.2)

    first = threading.Thread(target=hold)
    first.start()
    held.wait()
    refused = pytest.raises(record.RunFolderError)
    # The second waits on the file that the first takes away.
    with record.locked(tmp_path, patience=5), refused, record.locked(tmp_path, patience=0):
        pass
    first.join()
    with record.locked(tmp_path):
        pass


def test_a_lock_that_is_held_for_an_instant_is_waited_for(tmp_path):
    lock = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    with record.locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\0"])
def test_a_result_that_is_no_json_object_is_damaged(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(record.RunFolderError, match=f"{tmp_path}.result.json is damaged"):
        record.read_result(tmp_path)
    assert record.status(tmp_path) == "damaged"
