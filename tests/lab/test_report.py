"""The report of a run: any number of classes, any kind of run, and nothing but text from it."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from sklearn.metrics import f1_score
from test_page import HOSTILE

from lab import report, report_figures
from lab.images import ImageFile, ImageSet, OnDisk
from lab.page import VOID
from lab.predictions import Evaluated, Predictions

HEAD = "epoch,train_loss,val_loss,val_accuracy,lr,seconds,images_per_second"


class Page(HTMLParser):
    """A page as a browser sees it; raises ValueError where an end tag is not the right one."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise ValueError(tag)

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data + " ")

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def run_folder(folder: Path, rows: list[str] | None = None, **changes) -> Path:
    folder.mkdir()
    config = {"epochs": 3, "batch_size": 8, "model": {"_target_": "models.Linear"}, "seed": 0}
    result = {
        "status": "finished", "overrides": ["model=linear"], "model": "linear", "dataset": "mine",
        "epochs": 3, "best_epoch": 2, "val_accuracy": 0.5, "test_accuracy": 0.5, "seconds": 1.5,
        "command": ["script.py", "model=linear"], "versions": {"torch": "2"}, "commit": "abc",
    }  # fmt: skip
    result = {key: value for key, value in (result | changes).items() if value is not None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "result.json").write_text(json.dumps(result))
    if rows is None:
        rows = ["1,2,1.5,0.25,0.1,1,9", "2,1,0.5,0.75,0.05,1,9", "3,0.9,0.6,0.5,0,1,9"]
    (folder / "metrics.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    return folder


def of_random(classes: int | list[str], count: int = 60, channels: int = 1, right=0.5, size=6):
    """Predictions of which a share is right, for random images."""
    names = [f"c{i}" for i in range(classes)] if isinstance(classes, int) else classes
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, len(names), (count,), generator=generator)
    logits = torch.randn(count, len(names), generator=generator)
    wrong = torch.rand(count, generator=generator) >= right
    answers = torch.where(wrong, (labels + 1) % len(names), labels)
    logits[torch.arange(count), answers] = 5
    shape = (count, channels, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    image_set = ImageSet(images, labels, (0.5,) * channels, (0.5,) * channels)
    predictions = Predictions(logits, names, image_set.names(), labels)
    return Evaluated(predictions, image_set, "mine", True)


def written(tmp_path: Path, content: Evaluated, **changes) -> Page:
    folder = run_folder(tmp_path / "run", **changes)
    path = report.write(tmp_path / "out", folder, content)
    assert path == tmp_path / "out/report.html"
    return Page(path)


def test_the_figures_are_those_of_the_predictions(tmp_path):
    content = of_random(4)
    page = written(tmp_path, content, test_accuracy=content.predictions.accuracy)
    predictions = content.predictions
    assert repr(predictions.accuracy) in page.text and repr(predictions.loss) in page.text
    assert f"linear on mine: {predictions.accuracy:.2%} test accuracy" in page.text
    pair = predictions.labels.numpy(), predictions.predicted.numpy()
    for score in f1_score(*pair, average=None, labels=range(4)):
        assert f"{score:.4f}" in page.text
    assert "macro average 60 " in page.text
    assert "script.py model=linear" in page.text and "abc" in page.text
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "prediction", *(f"p(c{i})" for i in range(4))]
    assert sum(row["label"] == row["prediction"] for row in rows) / 60 == predictions.accuracy
    losses = [-torch.tensor(float(row[f"p({row['label']})"])).double().log() for row in rows]
    assert torch.stack(losses).mean().item() == pytest.approx(predictions.loss, rel=1e-6)


def test_worst_mistakes_come_first_and_only_mistakes(tmp_path):
    content = of_random(5, count=200, right=0.4)
    page = written(tmp_path, content)
    predictions = content.predictions
    pictures = [image for image in page.of("img") if "taken for" in image["alt"]]
    assert len(pictures) == 48
    assert all(image["src"].startswith("data:image/png;base64,") for image in pictures)
    own = predictions.probabilities[torch.arange(200), predictions.labels]
    own[predictions.predicted == predictions.labels] = 2
    shown = list(map(int, re.findall(r"image (\d+)", page.text)))
    assert shown == own.argsort(stable=True)[:48].tolist()


def test_links_lead_to_sections(tmp_path):
    page = written(tmp_path, of_random(2))
    ids = {f"#{title['id']}" for title in page.of("h2")}
    assert {link["href"] for link in page.of("a") if link["href"][0] == "#"} == ids


@pytest.mark.parametrize("count", [1, 2, 49])
def test_any_number_of_images(tmp_path, count):
    page = written(tmp_path, of_random(3, count=count, right=0))
    assert len([image for image in page.of("img") if "taken for" in image["alt"]]) == min(count, 48)


@pytest.mark.parametrize(
    ("classes", "channels"), [(1, 1), (2, 3), (2, 4), (25, 1), (26, 3), (1000, 1)]
)
def test_any_number_of_classes_and_channels(tmp_path, classes, channels):
    page = written(tmp_path, of_random(classes, channels=channels))
    cells = [attributes for attributes in page.of("rect") if attributes.get("class") == "empty"]
    matrix = [image for image in page.of("img") if image["alt"].startswith("confusion")]
    assert (len(cells), len(matrix)) == ((classes**2, 0) if classes <= 25 else (0, 1))
    assert len(page.of("svg")) == 5 + (classes <= 25)
    assert ("The 12 classes with the lowest F1" in page.text) == (classes == 1000)
    assert (tmp_path / "out/report.html").stat().st_size < 500_000


def test_a_run_without_mistakes(tmp_path):
    page = written(tmp_path, of_random(3, right=1.0))
    assert "100.00% test accuracy" in page.text
    assert "There are none: every prediction is right." in page.text and "No mistakes." in page.text


@pytest.mark.parametrize(
    ("rows", "message", "charts"),
    [
        ([], "No epoch has been recorded", 0),
        (["1,2,1.5,0.25,0.1,1,9"], "All epochs", 3),
        (["1,nan,inf,0.25,0.1,1,9", "2,,x,0.5,0.1,1,9"], "No loss was recorded", 2),
        (["x,y,z", "1"], "All epochs", 0),
        ([f"{i},1,1,0.5,0.1,1,9" for i in range(1, 2001)], "300 of 2000 epochs", 3),
    ],
)
def test_any_number_of_epochs(tmp_path, rows, message, charts):
    page = written(tmp_path, of_random(2), rows=rows, best_epoch=None)
    assert message in page.text
    labels = [svg["aria-label"] for svg in page.of("svg")]
    assert len([label for label in labels if label.endswith("by epoch")]) == charts
    hints = [attributes for attributes in page.of("circle") if attributes.get("class") == "hint"]
    assert len(hints) <= 4 * 201


def test_the_best_epoch_is_marked(tmp_path):
    page = written(tmp_path, of_random(2))
    assert page.text.count("best epoch: 2") == 3


def test_of_an_unfinished_run_the_best_epoch_is_the_one_whose_weights_are_kept(tmp_path):
    rows = ["1,2,1.5,0.5,0.1,1,9", "2,2,1.5,0.5,0.1,1,9", "3,2,1.5,0.4,0.1,1,9"]
    changes = dict.fromkeys(("best_epoch", "test_accuracy", "val_accuracy", "seconds"))
    page = written(tmp_path, of_random(2), rows=rows, status="interrupted", **changes)
    assert "best epoch: 2" in page.text and "is not finished" in page.text


def test_of_a_resumed_run_that_is_not_finished_the_best_epoch_is_not_the_earlier_one(tmp_path):
    rows = ["1,2,1.5,0.5,0.1,1,9", "2,2,1.5,0.6,0.1,1,9", "3,2,1.5,0.7,0.1,1,9"]
    page = written(tmp_path, of_random(2), rows=rows, status="interrupted", best_epoch=2)
    assert "best epoch: 3" in page.text


def test_a_result_of_an_earlier_version_has_no_test_loss(tmp_path):
    content = of_random(2)
    page = written(tmp_path, content, test_accuracy=content.predictions.accuracy)
    assert "The figures differ" not in page.text
    (tmp_path / "other").mkdir()
    page = written(tmp_path / "other", content, test_accuracy=0.123)
    assert "The figures differ" in page.text


def test_another_dataset_is_named(tmp_path):
    content = of_random(2)
    other = Evaluated(content.predictions, content.image_set, "kmnist", False)
    page = written(tmp_path, other)
    assert "linear trained on mine, tested on kmnist" in page.text and "not those" in page.text
    assert "recorded" not in page.text.partition("Config")[0]


def test_pictures_on_the_disk_have_their_names(tmp_path):
    import numpy

    content = of_random(2, right=0.0)
    numpy.save(tmp_path / "a.npy", content.image_set.images.numpy())
    names = [f"test/cat/{i}.png" for i in range(60)]
    rows = torch.arange(60).flip(0)
    on_disk = OnDisk(ImageFile(tmp_path / "a.npy", ""), rows, names=names)
    image_set = ImageSet(on_disk, content.image_set.labels, (0.5,), (0.5,))
    predictions = content.predictions
    own = Predictions(predictions.logits, predictions.classes, image_set.names(), image_set.labels)
    page = written(tmp_path, Evaluated(own, image_set, "mine", True))
    assert "test/cat/59.png" in page.text
    lines = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert lines[0].startswith("file,label,") and lines[1].startswith("test/cat/59.png,")


def hostile(tmp_path: Path) -> Path:
    """The report of a run in which every text is full of markup."""
    text = " ".join(HOSTILE)
    content = of_random(HOSTILE, channels=3)
    content = Evaluated(content.predictions, content.image_set, text, True)
    versions = {text: text}
    changes = {"overrides": HOSTILE, "command": HOSTILE, "commit": text, "versions": versions}
    changes |= {"model": text, "dataset": text, "reason": text, "device_name": text}
    folder = run_folder(tmp_path / "run<b>", rows=[f"1,{text}", text], **changes)
    config = {text: {text: text}, "model": {"_target_": text}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    return report.write(tmp_path / "out", folder, content)


def test_markup_in_a_run_folder_stays_text(tmp_path):
    page = Page(hostile(tmp_path))
    assert not page.of("script") and {image["src"][:5] for image in page.of("img")} == {"data:"}
    links = [link["href"] for link in page.of("a") if link["href"][0] != "#"]
    assert links == ["predictions.csv", "https://arxiv.org/abs/1706.04599"]
    handlers = {name for _, attributes in page.elements for name in attributes if name[:2] == "on"}
    assert not handlers and "<script>window.hacked = 1</script>" in page.text


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("kind", ["markup", "2 classes", "1000 classes"])
def test_a_browser_shows_the_report(browser, tmp_path, kind, width, colours):
    if kind == "markup":
        path = hostile(tmp_path)
    else:
        written(tmp_path, of_random(int(kind.split()[0])))
        path = tmp_path / "out/report.html"
    browser.open(path, width, colours)
    assert browser.complaints() == [] and browser.requests() == []
    assert not browser.is_too_wide()
    assert browser.driver.execute_script("return window.hacked") is None
    text = browser.text()
    for title in ("Learning curves", "Confusion matrix", "Worst mistakes", "Calibration"):
        assert title in text
    broken = "return [...document.images].filter(image => !image.naturalWidth).length"
    assert browser.driver.execute_script(broken) == 0


@pytest.mark.browser
def test_the_page_is_used_by_keyboard(browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    written(tmp_path, of_random(2))
    browser.open(tmp_path / "out/report.html")
    details = browser.driver.find_element(By.CSS_SELECTOR, "details")
    assert not details.get_attribute("open")
    for _ in range(20):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.driver.switch_to.active_element.tag_name == "summary":
            break
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert details.get_attribute("open")
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.driver.execute_script(outline) == "solid"


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
def test_the_axis_of_a_constant_accuracy_ends_at_100_percent(accuracy):
    empty = {"train_loss": None, "val_loss": None, "lr": None}
    rows = [{"epoch": epoch, "val_accuracy": accuracy} | empty for epoch in (1.0, 2.0)]
    drawn = report_figures.learning_curves(rows, None)[1]
    shares = [float(share) for share in re.findall(r">(-?[\d.]+)%</text>", drawn)]
    assert shares and min(shares) >= 0 and max(shares) <= 100


def test_an_accuracy_that_cannot_be_has_an_axis():
    rows = [{"epoch": 1.0, "val_accuracy": 2.0, "train_loss": 1.0, "val_loss": 1.0, "lr": 1.0}]
    assert "200" in report_figures.learning_curves(rows, None)[1]
