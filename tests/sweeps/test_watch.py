"""results.py --watch, in a terminal and elsewhere."""

import os
import select
import signal
import subprocess
import sys
import time

import pytest
from conftest import PROJECT
from fabricated import fabricate, note, write_metrics

from lab import record
from sweeps import live, watch


def in_order(monkeypatch, *steps) -> None:
    """Do the next step at each pause."""
    left = list(steps)
    monkeypatch.setattr(watch.time, "sleep", lambda _: left.pop(0)())


def test_nothing_to_watch_ends_at_once(tmp_path, capfd):
    fabricate(tmp_path / "a")
    watch.watch([tmp_path])
    assert capfd.readouterr().out.endswith("1 of 1 jobs finished\n")


def test_a_sweep_is_watched_until_its_command_ends(tmp_path, monkeypatch, capfd):
    """Between two jobs nothing runs, and before the first there is no run yet."""
    sweep = live.sweeping(tmp_path, 3)

    def first():
        write_metrics(fabricate(tmp_path / "a"), [0.9])

    def second():
        note(fabricate(tmp_path / "b", seed=1), status="failed", reason="<b>loss is nan\x1b[31m")

    def third():
        fabricate(tmp_path / "c", seed=2)
        sweep.__exit__(None, None, None)

    with pytest.MonkeyPatch.context() as patch:
        in_order(patch, first, second, third)
        sweep.__enter__()
        watch.watch([tmp_path])
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(" ")[2] for line in lines if line[0].isdigit()] == [
        "0 of 3 jobs finished", "1 of 3 jobs finished", "1 of 3 jobs finished, 1 failed",
        "2 of 3 jobs finished, 1 failed",
    ]  # fmt: skip
    assert "finished: a: 90.00% on validation" in lines
    assert r"failed: b: <b>loss is nan\x1b[31m" in lines


def test_the_page_is_written_again(tmp_path, monkeypatch, capfd):
    folder = note(write_metrics(fabricate(tmp_path / "a"), [0.5, 0.6]), status="running")
    page = tmp_path / "results.html"
    seen = []

    def look():
        seen.append("Running: 1" in page.read_text())
        note(folder, status="finished")

    with record.locked(folder), pytest.MonkeyPatch.context() as patch:
        in_order(patch, look)
        watch.watch([tmp_path])
    assert seen == [True]


def test_a_page_that_cannot_be_written_is_said_once(tmp_path, monkeypatch, capfd):
    folder = note(fabricate(tmp_path / "a"), status="running")
    monkeypatch.setattr(watch.overview, "RELOAD", 0)

    def refuse(path, _):
        raise OSError(f"{path} could not be written")

    with record.locked(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch.files, "write_text", refuse)
        in_order(patch, lambda: None, lambda: None, lambda: note(folder, status="finished"))
        watch.watch([tmp_path])
    assert capfd.readouterr().out.count("results.html could not be written") == 1


def test_the_number_of_jobs(tmp_path):
    for number in range(2):
        fabricate(tmp_path / f"one/{number}")
        fabricate(tmp_path / f"two/{number}")
    found, is_live = watch.look([tmp_path])
    assert not is_live and watch.total_of([tmp_path], found) == 4
    with live.sweeping(tmp_path / "one", 5):
        assert watch.look([tmp_path])[1] and watch.total_of([tmp_path], found) == 7
    assert watch.total_of([tmp_path], found) == 4  # of a sweep that has ended, what there is


def read_until(descriptor: int, text: str, seconds: float = 60) -> str:
    shown, deadline = "", time.monotonic() + seconds
    while text not in shown and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                shown += os.read(descriptor, 65536).decode()
            except OSError:  # the other end is closed
                break
    return shown


@pytest.mark.skipif(os.name == "nt", reason="without pseudo-terminals")
def test_in_a_terminal_of_80_columns(tmp_path):
    """A bar per running job; Ctrl-C ends it without a traceback."""
    import fcntl
    import pty
    import struct
    import termios

    name = "model=mlp,optimizer.lr=0.001,augmentation=crop_flip,seed=0-0123abcd"
    folder = note(fabricate(tmp_path / name), status="running")
    write_metrics(folder, [0.5, 0.625, 0.75], seconds=100)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, str(PROJECT / "results.py"), str(tmp_path), "--watch"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    with record.locked(folder):
        process = subprocess.Popen(command, start_new_session=True, **streams)
        os.close(theirs)
        shown = read_until(ours, "75.00%, about 12 min left")
        os.killpg(process.pid, signal.SIGINT)
        rest = read_until(ours, "Interrupted.")
        assert process.wait(20) == 130
    os.close(ours)
    lines = [line for line in shown.replace("\x1b[A", "").replace("\n", "\r").split("\r") if line]
    assert all(len(line) <= 80 for line in lines), lines
    assert any(line.startswith("all jobs") and "0/1" in line for line in lines)
    assert any("seed=0-0123abcd" in line and "3/10" in line for line in lines)
    assert "Traceback" not in shown + rest
