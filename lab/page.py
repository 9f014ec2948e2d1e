"""The frame of a page that opens from the disk: one HTML file, which loads nothing from elsewhere.

What a page shows comes from run folders, which may be a stranger's. So markup is built by `element`
alone, which escapes all text, and the page's Content-Security-Policy lets the browser run and load
nothing but the script and the style that are given here.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.escape import one_line

# What a cell of a column of numbers may say.
NUMBER = re.compile(r"([-+−]?\d[\d.,]*(e[-+]?\d+)?( ?%| s)?( ± [\d.]+)?|–|)")
VOID = {"br", "hr", "img", "input", "link", "meta"}  # elements that have no content


class Markup(str):
    """HTML that was built by the functions of this module, and is not escaped again."""


def in_html(value: object) -> Markup:
    """A text as it is, in HTML: on one line, shortened if it is too long to be read."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    spaces = [" " * text[edge].isspace() for edge in (0, -1)] if text.strip() else [text[:1], ""]
    return Markup(html.escape(one_line(text)).join(spaces))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element of HTML or SVG: `element("td", "1 < 2", class_="number")`.

    Children and values of attributes that are not Markup are escaped. An underscore in the name of
    an attribute stands for a hyphen; None and False leave it out, True gives it no value.
    """
    given = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = "" if value is True else f'="{in_html(value)}"'
        given += f" {key.rstrip('_').replace('_', '-')}{written}"
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Texts, which are escaped, and elements, one after the other."""
    return Markup("".join(map(in_html, children)))


def table(head: Sequence[object], rows: Sequence[Sequence[object]], **attributes: object) -> Markup:
    """A table that scrolls sideways, also by keyboard, where it is wider than the screen. A column
    of numbers is aligned to the right."""
    columns = list(zip(*rows, strict=True)) or [()] * len(head)
    kinds = ["number" if column and all(map(_is_number, column)) else None for column in columns]
    top = [
        element("th", name, scope="col", class_=kind)
        for name, kind in zip(head, kinds, strict=True)
    ]
    body = [
        element(
            "tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))
        )
        for row in rows
    ]
    content = join(element("thead", element("tr", *top)), element("tbody", *body))
    return scrolling(element("table", content, **attributes))


def _is_number(cell: object) -> bool:
    return bool(NUMBER.fullmatch(str(cell)))


def scrolling(content: Markup) -> Markup:
    """What may be wider than a phone: it scrolls, and the page does not."""
    return element("div", content, class_="scroll", tabindex=0)


def figure(picture: Markup, caption: object, **attributes: object) -> Markup:
    """A picture below its caption."""
    return element("figure", element("figcaption", caption), scrolling(picture), **attributes)


def page(title: str, *body: Markup, style: str = "", script: str = "", data: Any = None) -> str:
    """The whole file. `style` and `script` are added to those of all pages; the script finds `data`
    by `JSON.parse(document.getElementById("data").textContent)`."""
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8") + style
    allowed = f"style-src {_hash(style)}; script-src {_hash(script)}; img-src data:"
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; {allowed}"
    head = join(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=Markup(policy)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),  # else the browser asks for favicon.ico
        element("title", title),
        element("style", Markup(style)),
    )
    main = element("main", element("h1", title), *body)
    embedded = element("script", in_script(data), type="application/json", id="data")
    parts = [main, embedded, element("script", Markup(script))]
    content = join(*(parts[:1] if not script else parts))
    content = element("html", element("head", head), element("body", content), lang="en")
    return f"<!doctype html>\n{content}\n"


def in_script(data: Any) -> Markup:
    """JSON that cannot end the script element: neither </script> nor <!-- occurs. What is not a
    finite number, which JSON does not have, becomes null."""
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    try:
        text = encode(data)
    except ValueError:  # rare, and to look at each of a million values takes long
        text = encode(_finite(data))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _hash(text: str) -> str:
    """What allows an inline style or script of exactly this text."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
