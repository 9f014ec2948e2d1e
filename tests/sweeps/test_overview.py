"""results.html: what is in it, and what a browser makes of it."""

import itertools
import json
import re

import pytest
from fabricated import CONFIG, fabricate, note, write_metrics

from lab import record
from sweeps import live, overview, runs

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "</script><script>window.hacked = 1</script>",
    "\"><svg onload=window.hacked=1>",
    "{{7*7}} ${7*7} &lt;b&gt; <!--",
]  # fmt: skip


def written(root) -> str:
    found = runs.read([root])
    varied = runs.what_varied(found)
    rows = runs.grouped(found, varied)
    content = overview.content(root, found, varied, rows, live.is_live([root], found))
    (root / "results.html").write_text(content, encoding="utf-8")
    return content


def data_of(content: str) -> dict:
    return json.loads(
        re.search('<script type="application/json" id="data">(.*?)</script>', content)[1]
    )


def sweep(root, models=("cnn", "linear", "mlp"), datasets=("fashion", "mnist"), seeds=(0, 1)):
    """A sweep with a failed, a pruned and an interrupted job."""
    for number, (model, dataset, seed) in enumerate(itertools.product(models, datasets, seeds)):
        config = {"dataset": CONFIG["dataset"] | {"name": dataset}, "epochs": 8}
        asked = (f"model={model}", f"dataset={dataset}")
        accuracy = 0.9 + 0.004 * number
        folder = fabricate(root / f"{model}-{dataset}-{seed}", *asked, seed=seed, accuracy=accuracy,
                           model={"_target_": f"models.{model}"}, **config)  # fmt: skip
        note(folder, model=model, dataset=dataset)
        write_metrics(folder, [accuracy - 0.3 / epoch for epoch in range(1, 9)])
    for status, reason in (("failed", "out of memory"), ("pruned", "pruned after epoch 3")):
        config = {"model": {"_target_": "models.mlp"}, "epochs": 8}
        config["dataset"] = CONFIG["dataset"] | {"name": "mnist"}
        folder = fabricate(root / status, "model=mlp", "dataset=mnist", seed=9, **config)
        write_metrics(note(folder, status=status, reason=reason), [0.5, 0.6, 0.7])
    return root


def test_the_figures_equal_those_of_result_json(tmp_path):
    data = data_of(written(sweep(tmp_path)))
    results = {folder.name: record.read_result(folder) for folder in tmp_path.glob("*-*")}
    assert len(results) == 12
    for row in data["runs"]:
        if row[2] == "finished":
            result = results[row[7]]
            figures = [result[key] for key in ("val_accuracy", "test_accuracy", "seconds")]
            assert row[3:6] == figures and row[1] == result["seed"]
            assert row[0] == [result["model"], result["dataset"]]
    assert data["keys"] == ["model", "dataset"]
    best = [row[0] for row in data["settings"] if row[4]]
    assert best == [["mlp", "fashion"], ["mlp", "mnist"]]
    assert all(len(row[5]) == 2 for row in data["settings"][:5])
    assert data["reload"] == 0


def test_what_did_not_finish_has_its_reason(tmp_path):
    content = written(sweep(tmp_path))
    for text in ("out of memory", "pruned after epoch 3", "3 of 8", "Not finished: 2"):
        assert text in content
    assert "12 finished, 1 failed, 1 pruned" in content and "reloads itself" not in content


def test_a_running_job_has_epoch_accuracy_and_time_left(tmp_path):
    folder = sweep(tmp_path) / "mlp-mnist-0"
    write_metrics(note(folder, status="running"), [0.5, 0.625], seconds=100)
    with record.locked(folder):
        content = written(tmp_path)
    running = content[content.index("Running: 1") : content.index("<h2>Table")]
    for text in ("mlp-mnist-0", "2 of 8", "62.50", "about 10 min"):
        assert f">{text}</td>" in running
    assert data_of(content)["reload"] == overview.RELOAD and "reloads itself" in content


def test_it_reloads_between_two_jobs_of_a_sweep(tmp_path):
    sweep(tmp_path)
    with live.sweeping(tmp_path, 20):
        assert data_of(written(tmp_path))["reload"] == overview.RELOAD
    assert data_of(written(tmp_path))["reload"] == 0


def test_links_lead_to_the_reports_that_exist(tmp_path):
    folder = sweep(tmp_path) / "mlp-mnist-0"
    other = fabricate(tmp_path / 'x "#?%<y', seed=5)
    for run in (folder, other):
        (run / "report").mkdir()
        (run / "report/report.html").write_text("")
    links = {row[7]: row[8] for row in data_of(written(tmp_path))["runs"] if row[8]}
    assert links == {
        "mlp-mnist-0": "mlp-mnist-0/report/report.html",
        'x "#?%<y': "x%20%22%23%3F%25%3Cy/report/report.html",
    }


def many(count: int) -> list[dict]:
    """Runs as `runs.read` gives them: five seeds of each setting, on two datasets."""
    return [
        {
            "status": "finished", "folder": overview.Path(f"many/{n}"), "seed": n % 5,
            "val_accuracy": n // 5 / count, "test_accuracy": 0.5, "seconds": 1.0, "config": (),
            "values": {"lr": f"{n // 5 / 1e6}", "dataset": "ab"[n // 5 % 2]},
        }
        for n in range(count)
    ]  # fmt: skip


def test_many_runs_are_thinned_openly():
    found = many(3000)
    found[7] |= {"status": "running"}
    varied = ["lr", "dataset"]
    rows = runs.grouped(found, varied)
    shown, shown_rows = overview.chosen(found, varied, rows)
    assert len(shown) <= overview.MOST + 1 and found[7] in shown
    best = {row["setting"] for row in shown_rows}
    assert len(best) == 200 and all(row["runs"] == 5 for row in shown_rows)
    assert {setting[1] for setting in best} == {"a", "b"}
    assert min(float(lr) for lr, _ in best) == 400 / 1e6
    content = overview.content(overview.Path("many"), found, varied, rows, is_live=True)
    assert f"have {len(shown)} of the runs" in content


def test_a_page_of_a_thousand_runs_has_three_megabytes_at_most(tmp_path, monkeypatch):
    one = write_metrics(fabricate(tmp_path / "run"), [0.98765 - 0.3 / n for n in range(1, 400)])
    curves = overview.epochs.curves
    monkeypatch.setattr(overview.epochs, "curves", lambda _, most: curves(one, most))
    found = many(1000)
    for number, run in enumerate(found):
        run["folder"] = overview.Path(f"many/{'model=mlp,optimizer.lr=0.00123,' * 3}{number}")
    varied = ["lr", "dataset"]
    content = overview.content(
        overview.Path("many"), found, varied, runs.grouped(found, varied), False
    )
    assert 1e6 < len(content.encode()) < 3e6
    assert "Curves of more than 60 epochs are thinned" in content


def hostile(root):
    """A sweep whose names, values and reasons are markup."""
    for number, text in enumerate(HOSTILE):
        name = text.replace("/", "∕")
        folder = fabricate(root / name, f"model={text}", seed=number, model={"_target_": text})
        write_metrics(note(folder, model=text, dataset=text), [0.5, 0.6])
        failed = fabricate(root / f"failed{number}{name}", f"model={text}", seed=number)
        note(failed, status="failed", reason=text, model=text, dataset=text)
    return root


def test_markup_stays_text(tmp_path):
    content = written(hostile(tmp_path))
    tags = set(re.findall(r"<(\w+)", content)) - {"html", "head", "meta", "link", "title", "style"}
    own = "body main h1 h2 h3 p b div section span ul button label input select option noscript"
    drawn = "table thead tbody tr th td svg line circle text script"
    assert tags <= {*own.split(), *drawn.split()} and content.count("<script") == 2


def rows_of(browser) -> list[list[str]]:
    script = """return [...document.querySelectorAll("#table tbody tr")].map(
        (row) => [...row.cells].map((cell) => cell.textContent.trim()))"""
    return browser.driver.execute_script(script)


def heads_of(browser) -> list[str]:
    script = "return [...document.querySelectorAll('#table th')].map((head) => head.textContent)"
    return browser.driver.execute_script(script)


def point_at(browser, x: float, y: float) -> list[str]:
    """Move the pointer over the curves, to shares of their width and height; what is read there."""
    from selenium.webdriver.common.action_chains import ActionChains

    svg = browser.driver.find_element("css selector", "#chart svg")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
    width, height = svg.size["width"], svg.size["height"]
    offset = int((x - 0.5) * width), int((y - 0.5) * height)
    ActionChains(browser.driver).move_to_element_with_offset(svg, *offset).perform()
    return browser.driver.find_element("id", "readout").text.splitlines()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_browser_opens_it_without_a_request(browser, tmp_path, width, colours):
    written(sweep(tmp_path))
    browser.open(tmp_path / "results.html", width, colours)
    assert browser.complaints() == [] and browser.requests() == []
    assert not browser.is_too_wide()
    rows = rows_of(browser)
    assert len(rows) == 6 and "best" in heads_of(browser)
    assert rows[0][1:6] == ["cnn", "fashion", "2", "90.20 ± 0.28", "90.20 ± 0.28"]
    lines = point_at(browser, 0.99, 0.1)
    assert lines[0].startswith("epoch 8: val_accuracy") and len(lines) == 9
    assert {"90.65 %", "mlp, mnist, seed 1"} <= set(lines)


@pytest.mark.browser
def test_the_table_sorts_and_filters(browser, tmp_path):
    written(sweep(tmp_path))
    browser.open(tmp_path / "results.html")
    find = browser.driver.find_element

    def sort_by(name: str) -> list[str]:
        place = [head.strip(" ▲▼") for head in heads_of(browser)].index(name)
        find("css selector", f"#table th:nth-child({place + 1}) button").click()
        return [row[place] for row in rows_of(browser)]

    assert sort_by("test accuracy %")[0] == "94.20 ± 0.28"  # the largest first
    assert sort_by("test accuracy %")[0] == "90.20 ± 0.28"
    assert sort_by("model") == sorted(["cnn", "linear", "mlp"] * 2)
    focus = "return document.activeElement.textContent"
    assert browser.driver.execute_script(focus) == "model ▲"  # the keyboard stays where it was
    box = find("id", "filter")
    box.send_keys("mnist l")
    assert [row[1:3] for row in rows_of(browser)] == [["linear", "mnist"], ["mlp", "mnist"]]
    assert find("id", "count").text == "2 of 6 settings"
    box.clear()
    box.send_keys("dataset=fashion MLP")
    assert [row[1:3] for row in rows_of(browser)] == [["mlp", "fashion"]]
    box.clear()
    box.send_keys("x")
    box.clear()
    browser.driver.execute_script(
        "const view = document.getElementById('view'); view.value = 'runs';"
        "view.dispatchEvent(new Event('change'))"
    )
    box.send_keys("status=failed")
    rows = rows_of(browser)
    assert len(rows) == 1 and "failed" in rows[0] and rows[0][1:3] == ["mlp", "mnist"]


@pytest.mark.browser
def test_curves_are_chosen_and_read_by_keyboard(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    written(sweep(tmp_path))
    browser.open(tmp_path / "results.html")
    find = browser.driver.find_element
    # Of the best settings, with what did not finish of them.
    assert find("id", "drawn").text == "6 curves"
    boxes = browser.driver.find_elements("css selector", "#table input")
    assert [box.is_selected() for box in boxes] == [False] * 4 + [True] * 2
    boxes[0].send_keys(Keys.SPACE)
    assert find("id", "drawn").text == "8 curves"
    assert "cnn, fashion (2 runs)" in find("id", "legend").text
    chart = find("id", "chart")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert find("id", "readout").text.startswith("epoch 2: val_accuracy")
    chart.send_keys(Keys.END)
    lines = find("id", "readout").text.splitlines()
    assert lines[0].startswith("epoch 8") and "86.65 %" in lines  # 0.904 - 0.3 / 8
    for _ in range(2):
        find("css selector", "#legend button").click()
    assert find("id", "drawn").text == "2 curves"
    browser.driver.refresh()  # the page is written again: what was chosen stays
    assert find("id", "drawn").text == "2 curves"
    assert browser.complaints() == []


@pytest.mark.browser
def test_a_browser_shows_markup_as_text(browser, tmp_path):
    written(hostile(tmp_path))
    browser.open(tmp_path / "results.html")
    point_at(browser, 0.5, 0.5)
    assert browser.complaints() == [] and browser.requests() == []
    assert browser.driver.execute_script("return window.hacked") is None
    shown = browser.text()
    assert all(shown.count(text) >= 3 for text in HOSTILE)


@pytest.mark.browser
def test_it_reloads_while_something_runs(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(overview, "RELOAD", 1)
    folder = note(sweep(tmp_path) / "mlp-mnist-0", status="running")
    with record.locked(folder):
        written(tmp_path)
    browser.open(tmp_path / "results.html")
    assert "Running: 1" in browser.text()
    note(folder, status="finished")
    written(tmp_path)
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser.driver, 10).until(lambda _: "Running: 1" not in browser.text())
    assert "14 runs" in browser.text() and browser.complaints() == []


@pytest.mark.browser
def test_a_thousand_runs_open_in_a_second(browser, tmp_path, monkeypatch):
    one = write_metrics(fabricate(tmp_path / "run"), [0.98765 - 0.3 / n for n in range(1, 400)])
    curves = overview.epochs.curves
    monkeypatch.setattr(overview.epochs, "curves", lambda _, most: curves(one, most))
    found = many(1000)
    varied = ["seed", "lr", "dataset"]  # a row per run
    for run in found:
        run["values"] |= {"seed": str(run["seed"])}
    content = overview.content(tmp_path, found, varied, runs.grouped(found, varied), False)
    (tmp_path / "results.html").write_text(content, encoding="utf-8")
    times = []
    for _ in range(3):
        browser.open(tmp_path / "results.html")
        times.append(browser.driver.execute_script("return performance.now()"))
        assert len(rows_of(browser)) == 1000
    assert min(times) < 1000, times
