import hashlib
import json
from pathlib import Path

import pytest

from lab import callbacks, provenance, repository
from lab.files import write_text


def test_provenance_records_the_commit_and_package_versions():
    written = provenance.collect()
    assert written["commit"] is None or len(written["commit"]) == 40
    assert set(provenance.PACKAGES) < set(written["versions"])
    json.dumps(written)


WITHOUT_GIT = {
    "no repository": ({}, "not a git repository"),
    "another owner": ({"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "dubious ownership"),
    "no git": ({"PATH": "/nowhere"}, "git cannot be run"),
    "a broken git": ({"GIT_CONFIG_COUNT": "x"}, "bogus count"),
}


@pytest.mark.parametrize("case", WITHOUT_GIT)
def test_what_git_does_not_tell_is_null_with_its_reason(tmp_path, monkeypatch, case):
    if case != "no repository":
        make_repository(tmp_path, monkeypatch)
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    variables, reason = WITHOUT_GIT[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    written = provenance.collect.__wrapped__()
    assert written["commit"] is None and written["dirty"] is None
    assert reason in written["git_error"] and "\n" not in written["git_error"]
    with pytest.raises(SystemExit, match=rf"(?s)git does not say whether .*{reason}"):
        callbacks.CleanGit().on_run_start(None)


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


def changes() -> str:
    return provenance.uncommitted_changes.__wrapped__()


def test_large_and_many_files_are_listed_by_size_hash_and_name(modified_repository, monkeypatch):
    folder, calls, run = modified_repository, [], repository.subprocess.run
    wanted = folder / "nets.py"
    wanted.write_text("kept = 1\n")
    (folder / "big").write_bytes(b"\0" * (10**6 + 1))
    (folder / "binary").write_bytes(b"\1" * (10**6 + 1))  # a committed file
    (folder / "venv/lib").mkdir(parents=True)
    for number in range(300):
        (folder / f"venv/lib/{number:03}.py").write_text(f"number = {number}\n")
    monkeypatch.setattr(
        repository.subprocess, "run", lambda *args, **more: calls.append(args) or run(*args, **more)
    )
    text = changes()
    assert len(calls) < 12
    head, *listed = [line for line in text.splitlines() if line.startswith("# ")]
    assert head == ("# Not in this diff, over the limits of size or number: bytes, SHA-256, name")
    lines = {line.split()[3]: line.split()[1:3] for line in listed}
    assert lines["big"] == ["1000001", hashlib.sha256(b"\0" * (10**6 + 1)).hexdigest()]
    assert lines["binary"][0] == "1000001" and "venv/lib/299.py" in lines
    assert len(text) < 10**5
    assert (
        text.count("\n+number = ") == repository.MOST_NEW - 5
    )  # of the new files, five are nearer
    assert "+kept = 1" in text  # the files nearest to the top come first


def test_the_total_size_of_a_diff_is_limited(modified_repository, monkeypatch):
    monkeypatch.setattr(repository, "MOST_IN_ALL", 1000)
    monkeypatch.setattr(repository, "MOST_HASHED", 1000)
    for number in range(9):
        (modified_repository / f"{number}.py").write_text("x" * 600)
    (modified_repository / "large").write_text("x" * 2000)
    text = changes()
    assert len(text) < 4000 and text.count("# 600 ") == 9 and "# 2000 changed-2" in text


HOSTILE = """
[diff]
    external = echo
    noprefix = true
    mnemonicPrefix = true
    relative = true
    context = 0
    algorithm = patience
    orderFile = /nowhere
    autoRefreshIndex = false
    suppressBlankEmpty = true
    renames = copies
[color]
    ui = always
[core]
    quotePath = false
    autocrlf = input
    safecrlf = true
    attributesFile = {attributes}
    fsmonitor = false
    splitIndex = true
[diff "odd"]
    textconv = tr a-z A-Z <
    command = echo
"""


def test_a_diff_is_the_same_from_a_subfolder_and_with_any_settings_of_git(
    modified_repository, tmp_path, monkeypatch
):
    folder = modified_repository
    (folder / "sub").mkdir()
    (folder / "sub/inner.py").write_text("inner = 1\n")
    expected = changes()
    index = (folder / ".git/index").read_bytes()
    (tmp_path / "attributes").write_text("*.py diff=odd\n*.txt binary\n")
    settings = HOSTILE.replace("{attributes}", str(tmp_path / "attributes"))
    (tmp_path / ".gitconfig").write_text(settings)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "echo")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert changes() == expected
    monkeypatch.setattr(provenance, "PROJECT", folder / "sub")
    assert changes() == expected
    assert (folder / ".git/index").read_bytes() == index
    assert not list((folder / ".git").glob("sharedindex.*"))


def test_a_diff_that_git_cannot_make_says_why(modified_repository, monkeypatch):
    monkeypatch.setattr(repository, "PATCH", ("--nonsense",))
    text = changes()
    assert text.startswith("# Not in this diff, usage: git diff-index")
    assert " größe.py\n" in text and " moved.py\n" in text
