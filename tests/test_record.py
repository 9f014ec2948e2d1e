import json
import os
import threading
from pathlib import Path

import filelock
import pytest

import record


def test_provenance_names_the_commit_and_the_versions():
    written = record.provenance()
    assert written["commit"] is None or len(written["commit"]) == 40
    assert set(record.PACKAGES) < set(written["versions"])
    json.dumps(written)


def test_outside_a_repository_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PROJECT", tmp_path)
    assert record.provenance.__wrapped__()["commit"] is None


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


def test_uncommitted_changes_are_recorded_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PROJECT", tmp_path)
    for command in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        record.git(*command)
    (tmp_path / "old.py").write_text("before = 1\n")
    record.git("add", "-A")
    record.git("commit", "-qm", "first")
    changes = record.uncommitted_changes.__wrapped__
    assert changes() == ""
    (tmp_path / "old.py").write_text("after = 2\n")
    (tmp_path / "new.py").write_text("new = 3\n")
    assert "+after = 2" in changes() and "-before = 1" in changes() and "+new = 3" in changes()
    assert record.provenance.__wrapped__()["dirty"]


def repository(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(record, "PROJECT", folder)
    for command in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        record.git(*command)
    (folder / "moved.py").write_text("same = 1\n" * 9)
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "windows.txt").write_bytes(b"a\r\nb\r\n")
    record.git("add", "-A")
    record.git("commit", "-qm", "first")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


@pytest.fixture
def changed(tmp_path, monkeypatch) -> Path:
    """A repository with a change of every kind that a diff may forget."""
    folder = tmp_path / "repository"
    folder.mkdir()
    repository(folder, monkeypatch)
    (folder / "binary").write_bytes(b"\0other")
    (folder / "windows.txt").write_bytes(b"a\r\nc\r\n")
    (folder / "größe.py").write_text("new = 1\n")
    (folder / "latin").write_bytes("größe\n".encode("latin1"))
    (folder / "picture").write_bytes(bytes(range(9)))
    record.git("mv", "moved.py", "there.py")
    return folder


def test_the_changes_make_the_same_files_of_the_commit(changed, tmp_path):
    record.write_text(tmp_path / "changes.diff", record.uncommitted_changes.__wrapped__())
    clone = tmp_path / "clone"
    record.git("clone", "-q", str(changed), str(clone))
    record.git("-C", str(clone), "apply", str(tmp_path / "changes.diff"))
    assert files(clone) == files(changed)


def test_a_snapshot_is_the_project_as_it_is(changed, tmp_path):
    assert files(record.snapshot(tmp_path / "copy")) == files(changed)


def test_the_changes_of_an_earlier_part_are_kept(tmp_path, monkeypatch):
    for part, text in enumerate(["first", "first", "third", "fourth"]):
        monkeypatch.setattr(record, "uncommitted_changes", lambda text=text: text)
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


def test_untracked_files_are_told_whatever_the_user_told_git(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PROJECT", tmp_path)
    record.git("init", "-q")
    record.git("config", "status.showUntrackedFiles", "no")
    assert not record.provenance.__wrapped__()["dirty"]
    (tmp_path / "new.py").touch()
    assert record.provenance.__wrapped__()["dirty"]
