import json
import os

import pytest

from lab import files


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
