import json
from pathlib import Path

import pytest

import provenance
import record


def test_provenance_names_the_commit_and_the_versions():
    written = provenance.collect()
    assert written["commit"] is None or len(written["commit"]) == 40
    assert set(provenance.PACKAGES) < set(written["versions"])
    json.dumps(written)


def test_outside_a_repository_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    assert provenance.collect.__wrapped__()["commit"] is None


def test_uncommitted_changes_are_recorded_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    for command in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        provenance.git(*command)
    (tmp_path / "old.py").write_text("before = 1\n")
    provenance.git("add", "-A")
    provenance.git("commit", "-qm", "first")
    changes = provenance.uncommitted_changes.__wrapped__
    assert changes() == ""
    (tmp_path / "old.py").write_text("after = 2\n")
    (tmp_path / "new.py").write_text("new = 3\n")
    assert "+after = 2" in changes() and "-before = 1" in changes() and "+new = 3" in changes()
    assert provenance.collect.__wrapped__()["dirty"]


def repository(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(provenance, "PROJECT", folder)
    for command in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        provenance.git(*command)
    (folder / "moved.py").write_text("same = 1\n" * 9)
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "windows.txt").write_bytes(b"a\r\nb\r\n")
    provenance.git("add", "-A")
    provenance.git("commit", "-qm", "first")


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
    provenance.git("mv", "moved.py", "there.py")
    return folder


def test_the_changes_make_the_same_files_of_the_commit(changed, tmp_path):
    record.write_text(tmp_path / "changes.diff", provenance.uncommitted_changes.__wrapped__())
    clone = tmp_path / "clone"
    provenance.git("clone", "-q", str(changed), str(clone))
    provenance.git("-C", str(clone), "apply", str(tmp_path / "changes.diff"))
    assert files(clone) == files(changed)


def test_a_snapshot_is_the_project_as_it_is(changed, tmp_path):
    assert files(provenance.snapshot(tmp_path / "copy")) == files(changed)


def test_untracked_files_are_told_whatever_the_user_told_git(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    provenance.git("init", "-q")
    provenance.git("config", "status.showUntrackedFiles", "no")
    assert not provenance.collect.__wrapped__()["dirty"]
    (tmp_path / "new.py").touch()
    assert provenance.collect.__wrapped__()["dirty"]
