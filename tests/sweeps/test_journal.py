"""Optuna's journal: a record that was cut off is dropped, and a damaged one is named."""

import json
import os
import resource
from functools import partial
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna", reason="pip install -r env/requirements-search.txt")

from lab.errors import ConfigError, Refusal  # noqa: E402
from sweeps.journal import Journal  # noqa: E402


def study(path: Path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(Journal(path))
    return optuna.create_study(storage=storage, study_name="a", load_if_exists=True)


@pytest.fixture
def journal(tmp_path) -> Path:
    """Of a search with three trials."""
    path = tmp_path / "search.journal"
    study(path).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return path


def test_a_last_record_that_was_cut_off_anywhere_is_dropped(journal, capfd):
    whole = journal.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(start + 1, len(whole)):
        journal.write_bytes(whole[:end])
        Journal(journal)
        assert journal.read_bytes() == whole[:start]
        sentence = f"search.journal: the last record was cut off after {end - start} bytes"
        assert sentence in capfd.readouterr().out
    assert len(study(journal).trials) == 3
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"half", b"\0" * 10_000])
def test_a_file_without_a_whole_record_is_an_empty_journal(tmp_path, content):
    path = tmp_path / "search.journal"
    path.write_bytes(content)
    assert study(path).trials == [] and path.read_bytes().endswith(b"}\n")


def test_a_record_is_never_appended_to_half_of_another(journal):
    found = study(journal)
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"wor')  # another process, which is killed
    found.optimize(lambda trial: 1.0, n_trials=1)
    assert len(study(journal).trials) == 4


DAMAGES = [b"", b'{"op_co', b"[]", b"{}", b"\xff", b"[" * 10**5]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
@pytest.mark.parametrize("number", [2, 7, -1])
def test_a_damaged_record_is_named_with_its_line_and_the_trials_before_it(journal, damage, number):
    lines = journal.read_bytes().splitlines(keepends=True)
    ends = [json.loads(line)["op_code"] == 6 for line in lines]
    number %= len(lines)
    lines[number] = damage + b"\n"
    journal.write_bytes(b"".join(lines))
    before = sum(ends[:number])
    with pytest.raises(ConfigError) as refused:
        study(journal)
    start = f"{journal} is damaged in line {number + 1} of {len(lines)}: the {before} trials that "
    assert str(refused.value).startswith(start)
    assert f"keep its first {number} lines alone" in str(refused.value)
    journal.write_bytes(b"".join(lines[:number]))  # as the sentence says
    states = [trial.state.name for trial in study(journal).trials]
    assert states.count("COMPLETE") == before


def test_a_full_disk_leaves_the_journal_as_it_was(journal):
    found, before = study(journal), journal.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limit[1]))
    try:
        with pytest.raises(OSError, match=r"search.journal could not be written \(File too large"):
            found.ask()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert journal.read_bytes() == before
    found.ask()
    assert len(study(journal).trials) == 4


@pytest.mark.parametrize("name", ["search.journal", "search.journal.lock"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_journal_is_a_regular_file(tmp_path, name, kind):
    path, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    make = {"folder": path.mkdir, "pipe": partial(os.mkfifo, path)}
    make.get(kind, partial(path.symlink_to, elsewhere))()
    with pytest.raises(Refusal, match=r": remove it"):
        Journal(tmp_path / "search.journal")
    assert not elsewhere.exists()


def test_a_journal_that_would_fill_the_memory_is_not_read(journal):
    os.truncate(journal, 10**12)  # a hole, which takes no space on the disk
    with journal.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\n")
    with pytest.raises(Refusal, match="is damaged: it has 1000000000000 bytes"):
        Journal(journal)
