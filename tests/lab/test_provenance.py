import json
from pathlib import Path

import pytest

from lab import provenance
from lab.files import write_text


def test_provenance_records_the_commit_and_package_versions():
    written = provenance.collect()
    assert written["commit"] is None or len(written["commit"]) == 40
    assert set(provenance.PACKAGES) < set(written["versions"])
    json.dumps(written)


def test_the_commit_is_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    assert provenance.collect.__wrapped__()["commit"] is None


def test_uncommitted_changes_include_modified_and_untracked_files(tmp_path, monkeypatch):
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


def make_repository(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(provenance, "PROJECT", folder)
    for command in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        provenance.git(*command)
    (folder / "moved.py").write_text("same = 1\n" * 9)
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "windows.txt").write_bytes(b"a\r\nb\r\n")
    provenance.git("add", "-A")
    provenance.git("commit", "-qm", "first")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


@pytest.fixture
def modified_repository(tmp_path, monkeypatch) -> Path:
    """A repository with every kind of change that a diff may miss."""
    folder = tmp_path / "repository"
    folder.mkdir()
    make_repository(folder, monkeypatch)
    (folder / "binary").write_bytes(b"\0other")
    (folder / "windows.txt").write_bytes(b"a\r\nc\r\n")
    (folder / "größe.py").write_text("new = 1\n")
    (folder / "latin").write_bytes("größe\n".encode("latin1"))
    (folder / "picture").write_bytes(bytes(range(9)))
    provenance.git("mv", "moved.py", "there.py")
    return folder


def test_applying_the_changes_to_the_commit_restores_every_file(modified_repository, tmp_path):
    write_text(tmp_path / "changes.diff", provenance.uncommitted_changes.__wrapped__())
    clone = tmp_path / "clone"
    provenance.git("clone", "-q", str(modified_repository), str(clone))
    provenance.git("-C", str(clone), "apply", str(tmp_path / "changes.diff"))
    assert contents(clone) == contents(modified_repository)


def test_a_snapshot_equals_the_working_tree(modified_repository, tmp_path):
    assert contents(provenance.snapshot(tmp_path / "copy")) == contents(modified_repository)


def test_untracked_files_are_detected_even_if_git_status_hides_them(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    provenance.git("init", "-q")
    provenance.git("config", "status.showUntrackedFiles", "no")
    assert not provenance.collect.__wrapped__()["dirty"]
    (tmp_path / "new.py").touch()
    assert provenance.collect.__wrapped__()["dirty"]
