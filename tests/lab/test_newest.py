"""`last` names the run that was written to last."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import apart, run_folders

from lab import command_line, newest
from lab.errors import Refusal
from lab.reading import RunFolderError


def make(folder: Path, seconds: int, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or ("config.yaml", "result.json"):
        (folder / name).write_text("{}")
        os.utime(folder / name, (seconds, seconds))
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_newest_run_is_found_at_any_level(here):
    make(here / "runs/2026-01-01/a", 30)
    job = make(here / "runs/mine/model=cnn,seed=0-1", 50)
    make(here / "elsewhere/b", 90)
    make(here / "runs/no_config", 80, "result.json")
    (here / "runs/linked").symlink_to(here / "elsewhere")
    assert newest.run_folder("last") == job
    assert newest.run_folder("runs/x") == here / "runs/x"


def test_epochs_of_a_run_that_was_killed_count(here):
    killed = make(here / "runs/a", 10, "config.yaml", "result.json", "metrics.csv")
    make(here / "runs/b", 20)
    os.utime(killed / "metrics.csv", (30, 30))
    assert newest.run_folder("last") == killed


def test_a_report_or_a_run_within_a_run_is_none_of_its_own(here):
    run = make(here / "runs/a", 10)
    make(run / "report", 20)
    assert newest.run_folder("last") == run


def test_without_a_run_last_is_refused(here):
    for prepare in (lambda: None, lambda: make(here / "runs/a", 10, "script.log")):
        prepare()
        with pytest.raises(RunFolderError, match=r"newest run in .*/runs, and there is none: give"):
            newest.run_folder("last")


def test_a_run_folder_named_last_is_ambiguous(here):
    make(here / "last", 10)
    with pytest.raises(RunFolderError, match=r"write \./last for it; runs/ has no run"):
        newest.run_folder("last")
    run = make(here / "runs/a", 10)
    with pytest.raises(RunFolderError, match=f"newest run in runs/, write {run}"):
        newest.run_folder("last")
    assert newest.run_folder("./last") == here / "last"


def test_another_folder_named_last_is_not(here):
    (here / "last").mkdir()
    run = make(here / "runs/a", 10)
    assert newest.run_folder("last") == run


def test_evaluate_takes_a_folder_without_run(here):
    run = make(here / "runs/model=cnn,seed=0-1", 10)
    words = command_line.for_evaluate
    expected = ["evaluate.py", f"run='{run}'"]
    assert words(["evaluate.py", str(run)]) == expected
    assert words(["evaluate.py", "last"]) == words(["evaluate.py", "run=last"]) == expected
    inside = words(["evaluate.py", "runs/model=cnn,seed=0-1", "dataset=kmnist", "device=cpu"])
    assert inside[1:] == ["run='runs/model=cnn,seed=0-1'", "dataset=kmnist", "device=cpu"]
    (here / "dataset=kmnist").mkdir()  # a key of evaluate.py is a key
    assert words(["evaluate.py", "dataset=kmnist"])[1:] == ["dataset=kmnist"]
    assert words(["evaluate.py", "~/x"])[1:] == ["run='~/x'"]
    (here / "report").mkdir()
    assert words(["evaluate.py", "report"])[1:] == ["run='report'"]
    long = "unknown=" + "x" * 300
    assert words(["evaluate.py", long, "a\0=b"])[1:] == [long, "a\0=b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b"], "b is a second run folder: give one. Give pictures with images="),
        (["a", "run=b"], "b is a second run folder"),
        (["last", "a.png"], "a.png is a second run folder"),
        (["a", "report"], "report has no value: write report=VALUE"),
        ([""], "run= is empty"),
        (["last"], "and there is none"),
    ],
)
def test_folders_that_cannot_be(here, words, message):
    with pytest.raises(Refusal, match=message):
        command_line.for_evaluate(["evaluate.py", *words])


def test_last_is_evaluated_and_resumed(tmp_path, data_dir, capfd):
    small = ("model=linear", "dataset=digits", "epochs=1", "compile=false", "limit=64")
    with apart(tmp_path, data_dir) as call:
        assert call("evaluate.py", "last") == call("script.py", "resume=last") == 1
        assert capfd.readouterr().err.count("and there is none: give the path of a run folder") == 2
        assert call("script.py", *small) == 0
        newest_run = run_folders(tmp_path)[0].relative_to(tmp_path)
        older = shutil.copytree(newest_run, "runs/other/z")
        for name in newest.WRITTEN:
            os.utime(older + "/" + name, (9, 9))
        capfd.readouterr()
        assert call("evaluate.py", "last") == 0
        assert f"last is {newest_run}\n" in capfd.readouterr().out
        assert call("script.py", "resume=last", "epochs=2") == 0
        assert str(newest_run) in capfd.readouterr().out
