"""The frame of pages: what is shown in them stays text, and nothing is loaded or run."""

import json
import re

import pytest

from lab.page import Markup, element, in_html, in_script, join, page, table

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "\"><svg onload=window.hacked=1>",
    "</script><script>window.hacked = 1</script>",
    "<!-- <script>",
    "javascript:window.hacked=1",
    "&lt;b&gt; &amp;",
    "\u202eright to left\x1b[31m\0",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text):
    for built in (
        element("p", text), element("p", title=text), join(text), table([text], [[text]]),
    ):  # fmt: skip
        assert set(re.findall(r"<(\w+)", built)) <= {
            *("p", "div", "table", "thead", "tbody", "tr", "th", "td")
        }
        assert built.count('"') % 2 == 0 and "'" not in re.sub(r'"[^"]*"', "", built)
    assert in_html(in_html(text)) == in_html(text)


def test_data_cannot_end_its_script():
    data = {text: [text, {"value": text}] for text in HOSTILE}
    written = in_script(data)
    assert "<" not in written and json.loads(written) == data


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_become_null(value):
    assert in_script({"a": [value, 1.5]}) == '{"a":[null,1.5]}'


def test_attributes():
    built = element("input", class_="a", data_key="b", disabled=True, hidden=False, id=None)
    assert built == '<input class="a" data-key="b" disabled>'


@pytest.mark.parametrize(
    ("column", "is_right"),
    [
        ([98.5, "98.50 %", "0.98 ± 0.01", "12 s", "1e-3", "-3", "–", ""], True),
        (["1", "2026-11-26/run"], False),
        (["3.11.7", "2.9+cpu"], False),
        ([], False),
    ],
)
def test_columns_of_numbers_are_aligned_right(column, is_right):
    built = table(["a", "b"], [[cell, "text"] for cell in column])
    cells = re.findall("<t[hd](?: scope=.col.)?( class=.number.)?>", built)
    assert list(map(bool, cells)) == [is_right, False] * (1 + len(column))


@pytest.mark.parametrize("text", [" a ", "a", " ", "", "\na", "  a"])
def test_spaces_at_the_ends_are_kept(text):
    expected = {"\na": " a", "  a": " a"}.get(text, text)
    assert in_html(text) == expected


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_browser_shows_text_and_runs_the_script_alone(browser, tmp_path, width, colours):
    path = tmp_path / "page.html"
    script = """
    const data = JSON.parse(document.getElementById("data").textContent);
    const paragraph = document.createElement("p");
    paragraph.textContent = data.join(" ");
    document.querySelector("main").append(paragraph);
    """
    rows = [[text] * len(HOSTILE) for text in HOSTILE]
    body = [element("p", text, id=f"p{i}") for i, text in enumerate(HOSTILE)]
    content = page(HOSTILE[0], table(HOSTILE, rows), *body, script=script, data=HOSTILE[:6])
    path.write_text(content, encoding="utf-8")
    browser.open(path, width, colours)
    assert browser.complaints() == [] and browser.requests() == []
    assert browser.driver.title == HOSTILE[0]
    assert browser.driver.execute_script("return window.hacked") is None
    shown = browser.text()
    assert all(shown.count(text) >= 2 for text in HOSTILE[:6])
    assert not browser.is_too_wide()
    background = browser.driver.execute_script(
        "return getComputedStyle(document.documentElement).backgroundColor"
    )
    assert background == ("rgb(255, 255, 255)" if colours == "light" else "rgb(20, 24, 30)")


@pytest.mark.browser
@pytest.mark.parametrize(
    "markup",
    [
        "<script>window.hacked = 1</script>",
        "<img src=x: onerror='window.hacked = 1'>",
        "<img src='https://example.org/a.png'>",
        "<link rel=stylesheet href='https://example.org/a.css'>",
        "<iframe src='https://example.org'></iframe>",
        "<p style='color: red'>a</p>",
    ],
)
def test_the_policy_blocks_even_markup_that_was_not_escaped(browser, tmp_path, markup):
    path = tmp_path / "page.html"
    path.write_text(page("a", Markup(markup), script="window.ran = 1"), encoding="utf-8")
    browser.open(path)
    assert browser.driver.execute_script("return [window.ran, window.hacked]") == [1, None]
    assert browser.requests() == []
    assert "Content Security Policy" in "".join(browser.complaints())
