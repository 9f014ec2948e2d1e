"""A traceback is for bugs of lab/, sweeps/ and hydra_plugins/ alone."""

import pytest
from conftest import run_folders

from lab import cause, check
from lab.errors import ConfigError, explain


def caught(function, *arguments) -> BaseException:
    with pytest.raises(Exception) as error:
        function(*arguments)
    return error.value


@pytest.mark.slow
def test_a_bug_of_lab_shows_its_traceback(script, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("lab.checkpoint.EPOCH_COLUMNS", ())
    assert script("dataset=digits", "debug=smoke", "model=linear") == 1
    assert "Traceback" in "".join(capfd.readouterr())
    assert "Traceback" in (run_folders(tmp_path)[0] / "script.log").read_text()


def test_whose_code_raised_an_exception(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("import json\ndef read(text):\n    return json.loads(text)\n")
    namespace: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    error = caught(namespace["read"], "{")
    assert not cause.is_bug(error)
    assert cause.place(error) == f"{path}:3: return json.loads(text)"
    assert explain(error).startswith("Expecting property name")
    assert cause.is_bug(caught(check.dropout, "a"))
    assert explain(caught(check.dropout, "a")) is None


def test_a_refusal_is_found_below_what_wraps_it():
    try:
        raise RuntimeError("wrapper") from ConfigError("epochs=0 is not allowed.")
    except RuntimeError as error:
        assert explain(error) == "epochs=0 is not allowed."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("wrong size."), "wrong size"),
        (ValueError(), "ValueError"),
        (RuntimeError("Errors:\n  size 3\n  size 4"), "RuntimeError: Errors: size 3"),
        (AssertionError(), "AssertionError"),
    ],
    ids=str,
)
def test_an_exception_on_one_line(error, text):
    assert cause.described(error) == text
