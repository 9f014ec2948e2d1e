"""Text that somebody else may have written, as it is shown: it must not act on what shows it.

Names, reasons and classes come from run folders. A terminal obeys escape sequences, a spreadsheet
computes what begins with =, and a browser renders the markup in a Markdown file.
"""

import re
from typing import Any

from lab.terminal import visible

LONGEST = 500  # characters of a text that is shown in a line or a cell
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
MARKUP = re.compile(
    r"[\\`*<>&|~#{}$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word, _ is not markup
    r"|!(?=\[)|\[(?=[^\]]*\][(\[:])|(?<=\])[(\[:]"  # links and pictures
)


def one_line(text: object) -> str:
    """The text on one line, shortened if it is too long to be read."""
    shown = visible(str(text).strip()[: LONGEST + 1], keep="")
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def in_markdown(text: object) -> str:
    """The text as it is, in Markdown: with a backslash before each character that is markup."""
    return MARKUP.sub(lambda match: f"\\{match[0]}", one_line(text))


def in_spreadsheet(value: Any) -> Any:
    """A cell of a CSV file: what a spreadsheet would take for a formula begins with a single quote,
    as spreadsheets write it. Numbers stay as they are, also those in a string."""
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    shown = visible(text, keep="\n")
    return f"'{shown}" if FORMULA.match(text) and not _is_number(text) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
