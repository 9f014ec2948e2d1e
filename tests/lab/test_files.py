import json
import os
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from conftest import PROJECT

from lab import files
from lab.errors import Refusal
from lab.log_file import LogFile


def test_files_are_replaced_atomically(tmp_path):
    path = tmp_path / "metrics.csv"
    files.write_csv(path, [["epoch", "loss"], [1, 0.5]])
    files.write_csv(path, [["epoch", "loss"], [1, 0.5], [2, 0.25]])
    assert path.read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_is_reported_and_leaves_the_file_unchanged(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    files.write_json(path, {"epoch": 1})

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"result.json could not be written \(Permission denied\)"):
        files.write_json(path, {"epoch": 2})
    assert json.loads(path.read_text()) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_rename_is_repeated_while_another_process_reads_the_file(tmp_path, monkeypatch):
    replace, refusals = os.replace, [PermissionError(13, "Access is denied")] * 2

    def busy(*paths):
        if refusals:
            raise refusals.pop()
        replace(*paths)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files, "PATIENCE", 5)  # as on Windows
    files.write_json(tmp_path / "result.json", {"epoch": 1})
    assert not refusals and json.loads((tmp_path / "result.json").read_text()) == {"epoch": 1}


@pytest.fixture
def outside(tmp_path_factory) -> Path:
    """A file that nobody may touch."""
    path = tmp_path_factory.mktemp("outside") / "canary"
    path.write_text("untouched")
    return path


def test_a_file_is_never_written_through_a_link(tmp_path, outside):
    for name in ("a.csv", ".a.csv.partial"):
        (tmp_path / name).symlink_to(outside)
    files.write_csv(tmp_path / "a.csv", [["a"]])
    assert not (tmp_path / "a.csv").is_symlink() and (tmp_path / "a.csv").read_text() == "a\n"
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize("name", ["a.csv", ".a.csv.partial"])
def test_writing_never_waits_for_a_pipe(tmp_path, name):
    os.mkfifo(tmp_path / name)
    files.write_csv(tmp_path / "a.csv", [["a"]])
    assert (tmp_path / "a.csv").read_text() == "a\n"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_that_the_user_asks_for(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "new", "")
        open(tmp_path / "log", "ab", opener=files.regular).close()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_regular_file_is_appended_to(tmp_path, outside, kind):
    path = tmp_path / "script.log"
    make = {"folder": path.mkdir, "pipe": partial(os.mkfifo, path)}
    make.get(kind, partial(path.symlink_to, outside))()
    with pytest.raises(Refusal, match=r"script\.log is .*: remove it"):
        open(path, "ab", opener=files.regular)
    with pytest.raises(Refusal):
        LogFile(path)
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_ends_a_write_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / "last.pt"
    path.write_text("before")
    with pytest.raises(error), files.replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_behind_is_removed_once_it_is_old(tmp_path):
    old, young = (tmp_path / f".last.pt.{name}.partial" for name in ("old", "young"))
    other = tmp_path / ".best.pt.old.partial"
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    files.write_text(tmp_path / "last.pt", "")
    assert sorted(tmp_path.iterdir()) == [other, young, tmp_path / "last.pt"]
    files.discard_abandoned(tmp_path, seconds=0)
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]


WRITER = """
import sys
from pathlib import Path
from lab import files

number, path = sys.argv[1:]
text = number * 200_000
print("ready", flush=True)
while True:
    files.write_text(Path(path), text)
"""


@pytest.mark.parametrize(
    ("writers", "seconds"),
    [(2, 1), *(pytest.param(n, 10, marks=pytest.mark.slow) for n in (2, 8))],
)
def test_no_reader_sees_half_of_a_file_that_several_write_at_once(tmp_path, writers, seconds):
    path = tmp_path / "results.csv"
    command = [sys.executable, "-c", WRITER]
    started = [
        subprocess.Popen([*command, str(n), str(path)], cwd=PROJECT, stdout=subprocess.PIPE)
        for n in range(writers)
    ]
    try:
        for process in started:
            assert process.stdout.readline() == b"ready\n"
        while not path.exists():
            time.sleep(0.01)
        seen, deadline = Counter(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            text = path.read_text()
            assert text == text[0] * 200_000
            seen[text[0]] += 1
        assert all(process.poll() is None for process in started)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert len(seen) == writers and seen.total() > 50
    assert len(list(tmp_path.iterdir())) <= 1 + writers
