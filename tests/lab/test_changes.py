import pytest

from lab import changes, provenance


@pytest.fixture
def code(monkeypatch):
    """Set the uncommitted changes of the code."""
    return lambda text: monkeypatch.setattr(provenance, "uncommitted_changes", lambda: text)


def test_each_part_keeps_its_changes_under_a_name_of_its_own(tmp_path, code):
    result: dict = {}
    for part, text in enumerate(["first", "first", "third", "fourth", "fourth"], 1):
        code(text)
        assert changes.are_other(tmp_path, result) is (part in (3, 4))
        result = {"changes": changes.write(tmp_path, result, part)}
        assert changes.read(tmp_path, result) == text
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "changes.diff": "first", "changes-3.diff": "third", "changes-4.diff": "fourth",
    }  # fmt: skip


def test_a_part_that_was_killed_before_it_was_recorded_costs_no_other_its_changes(tmp_path, code):
    code("first")
    recorded = {"changes": changes.write(tmp_path, {}, 1)}
    for text in ("of the part that was killed", "second"):
        code(text)
        second = {"changes": changes.write(tmp_path, recorded, 2)}
    assert changes.read(tmp_path, recorded) == "first"
    assert changes.read(tmp_path, second) == "second"


def test_a_run_of_an_earlier_version_has_the_changes_of_its_last_part_in_one_file(tmp_path, code):
    (tmp_path / "changes-1.diff").write_text("first")
    (tmp_path / "changes.diff").write_text("second")
    before = {"status": "interrupted"}
    code("second")
    assert changes.write(tmp_path, before, 3) == "changes.diff"
    code("third")
    assert changes.write(tmp_path, before, 3) == "changes-3.diff"
    assert (tmp_path / "changes-1.diff").read_text() == "first"
    assert (tmp_path / "changes.diff").read_text() == "second"
