"""The command line of results.py, as users type it."""

import subprocess
import sys

import pytest
from conftest import PROJECT
from fabricated import fabricate


def test_help(call, capfd):
    assert call("results.py", "--help") == 0
    output = capfd.readouterr().out
    assert "python results.py runs/NAME" in output and "--watch" in output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Give a folder with run folders below it"),
        (["--wacth", "runs"], "--wacth is not an option of results.py"),
        (["runs", "--wacth"], "Did you mean --watch?"),
        (["runs", "-w"], "-w is not an option of results.py: it has --watch and --help."),
        (["--watch"], "Give a folder"),
        (["--watch=3", "runs"], "ignored explicit argument '3'"),
        (["nowhere"], "nowhere is not a folder"),
        (["nowhere", "--watch"], "nowhere is not a folder"),
    ],
)
def test_a_wrong_command_is_refused_in_a_sentence(call, capfd, words, sentence):
    assert call("results.py", *words) == 1
    output, error = capfd.readouterr()
    assert sentence in error and "Traceback" not in error and output == ""


def test_a_folder_may_begin_with_a_hyphen(call, tmp_path):
    fabricate(tmp_path / "-runs/a")
    assert call("results.py", "--", "-runs") == 0
    assert (tmp_path / "-runs/results.png").exists()


def test_without_a_terminal_or_with_closed_streams_all_files_are_written(tmp_path):
    fabricate(tmp_path / "runs/a")
    command = f"{sys.executable} {PROJECT / 'results.py'} runs <&- >&- 2>&-"
    assert subprocess.run(command, cwd=tmp_path, shell=True, timeout=60).returncode == 0
    written = {path.suffix for path in (tmp_path / "runs").glob("results.*")}
    assert written == {".csv", ".md", ".html", ".png"}
    assert (tmp_path / "runs/results.png").read_bytes().startswith(b"\x89PNG")
