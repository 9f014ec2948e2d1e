"""Whether the command of a sweep runs, as others see it."""

import os
import subprocess
import sys

from conftest import PROJECT

from sweeps import live


def test_a_sweep_is_seen_while_it_runs(tmp_path):
    assert not live.is_swept(tmp_path) and live.expected(tmp_path) == 0
    with live.sweeping(tmp_path, 8):
        assert live.is_swept(tmp_path) and live.expected(tmp_path) == 8
        with live.sweeping(tmp_path, 12):  # another command joins
            assert live.is_swept(tmp_path) and live.expected(tmp_path) == 12
        assert live.is_swept(tmp_path)
    assert not live.is_swept(tmp_path) and live.expected(tmp_path) == 12


def test_a_sweep_that_was_killed_is_not_running(tmp_path):
    code = """
import sys, pathlib, time
from sweeps import live
with live.sweeping(pathlib.Path(sys.argv[1]), 3):
    print("in", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        assert live.is_swept(tmp_path)
        process.kill()
    assert not live.is_swept(tmp_path)


def test_what_is_in_the_way_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / live.NAME)
    assert not live.is_swept(tmp_path) and live.expected(tmp_path) == 0
    (tmp_path / live.NAME).unlink()
    for content in ("", "x", "-3", "9" * 100):
        (tmp_path / live.NAME).write_text(content)
        assert live.expected(tmp_path) == 0
