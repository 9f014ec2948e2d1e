import csv
import logging
from pathlib import Path

import pytest

from lab import escape, files
from lab.terminal import Visible, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a → ü\n\tb", "a → ü\n\tb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\rb\x00\x7f\x9b", r"a\rb\x00\x7f\x9b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),  # is displayed from right to left
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
        (5, "5"),
    ],
)
def test_control_characters_are_shown_as_escape_sequences(text, shown):
    assert visible(text) == shown


def test_a_line_has_no_line_breaks_and_an_end():
    assert escape.one_line(" a\nb\x1b ") == r"a\nb\x1b"
    assert len(escape.one_line("x" * 10**6)) <= escape.LONGEST + 1


@pytest.mark.parametrize(
    "plain",
    ["optimizer.weight_decay", "[64, 64]", "96.1 ± 0.2", "1e-05", "2026-11-26/10-00_mlp", "a (b)"],
)
def test_names_and_values_are_the_same_in_markdown(plain):
    assert escape.in_markdown(plain) == plain


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<img src=x>", r"\<img src=x\>"),
        ("[a](http://b)", r"\[a]\(http://b)"),
        ("![a](b)", r"\!\[a]\(b)"),
        ("[a]: b", r"\[a]\: b"),
        ("a|b", r"a\|b"),
        ("**a** `b` ~~c~~", r"\*\*a\*\* \`b\` \~\~c\~\~"),
        ("__init__", r"\_\_init\_\_"),
        ("$x$ &lt; \\", r"\$x\$ \&lt; " + "\\\\"),
    ],
)
def test_markup_is_escaped(text, written):
    assert escape.in_markdown(text) == written


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+model.x=1", "'+model.x=1"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", r"'\t=1"),
        ("-0.5", "-0.5"),
        ("-1e-05", "-1e-05"),
        ("+3", "+3"),
        (-0.5, "-0.5"),
        ("mlp", "mlp"),
        ("[-1, 2]", "[-1, 2]"),
        ("", ""),
        ("a\x1bb", r"a\x1bb"),
        (Path("=a/b"), "'=a/b"),
        (None, ""),
        (True, "True"),
    ],
)
def test_no_cell_is_a_formula(tmp_path, value, cell):
    files.write_csv(tmp_path / "a.csv", [["head", value]])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["head", cell]]


def test_a_log_file_has_no_control_characters(tmp_path):
    record = logging.LogRecord("a", logging.INFO, "a.py", 1, "\x1b[31m %s\nb", ("\x07",), None)
    assert Visible("%(levelname)s %(message)s").format(record) == "INFO \\x1b[31m \\x07\nb"
