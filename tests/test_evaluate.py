"""evaluate.py on finished runs, on pictures, and on run folders from untrusted sources."""

import csv
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from conftest import PROJECT, apart, half_slow, run_folders
from PIL import Image

pytestmark = pytest.mark.xdist_group("evaluate")  # the tests share a run, trained by one worker


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir) -> Path:
    """A finished run of the default model, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    with apart(folder, data_dir) as call:
        assert call("script.py", "epochs=4", "batch_size=32") == 0
    (run,) = run_folders(folder)
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_test_accuracy_equals_the_recorded_one(evaluate, run, capfd):
    before = contents(run)
    assert evaluate(f"run={run}") == 0
    output = capfd.readouterr().out
    accuracy = json.loads((run / "result.json").read_text())["test_accuracy"]
    assert f"test accuracy {accuracy:.2%} on 160 images" in output
    assert f"the run recorded {accuracy:.2%}" in output
    rows = [line.split() for line in output.splitlines()[-10:]]
    counts = numpy.array([row[2:] for row in rows], dtype=int)
    assert counts.sum() == 160 and (counts.sum(1) == 16).all()
    assert counts.trace() == round(accuracy * 160)
    assert contents(run) == before


def test_an_interrupted_run_has_no_recorded_accuracy(evaluate, run, capfd):
    alter(run, status="interrupted", test_accuracy=...)
    assert evaluate(f"run={run}") == 0
    output = capfd.readouterr().out
    assert "test accuracy" in output and "the run recorded" not in output


def test_another_dataset_of_the_same_shape_is_evaluated(evaluate, run, capfd):
    assert evaluate(f"run={run}", "dataset=fashion") == 0
    output = capfd.readouterr().out
    assert "ankle boot" in output and "the run recorded" in output  # both have the same files


@pytest.mark.parametrize("word", ["+foo=1", "++run.x=1", "~images", "model=cnn"])
def test_a_key_that_would_have_no_effect_is_refused(evaluate, run, capfd, word):
    assert evaluate(f"run={run}", word) == 1
    assert f"{word} has no effect" in capfd.readouterr().err


def test_a_dataset_of_another_shape_is_refused(evaluate, run, capfd):
    assert evaluate(f"run={run}", "dataset=digits") == 1
    assert "dataset.image_size=8 is not what the run was trained on (28)" in capfd.readouterr().err


def test_light_and_dark_backgrounds_give_the_same_prediction(evaluate, run, tmp_path, capfd):
    drawing = numpy.zeros((90, 60), dtype=numpy.uint8)
    drawing[20:70, 25:35] = 255
    Image.fromarray(drawing).save(tmp_path / "dark.png")
    Image.fromarray(255 - drawing).save(tmp_path / "light.png")
    pictures = f"images=[{tmp_path}/dark.png,{tmp_path}/light.png]"
    assert evaluate(f"run={run}", pictures) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "60×90 pixels" in lines[0] and "inverted" not in lines[0]
    assert "inverted, since its background is light" in lines[2]
    assert "cropped and fitted into 28×28" in lines[0]
    assert lines[1] == lines[3]
    probabilities = [float(value) for value in re.findall(r"([\d.]+)%", lines[1])]
    assert len(probabilities) == 10 and sum(probabilities) == pytest.approx(100, abs=1)


def test_a_single_picture_needs_no_brackets_and_must_exist(evaluate, run, tmp_path, capfd):
    drawing = numpy.zeros((90, 60), dtype=numpy.uint8)
    drawing[20:70, 25:35] = 255
    Image.fromarray(drawing).save(tmp_path / "a.png")
    assert evaluate(f"run={run}", f"images={tmp_path}/a.png") == 0
    assert "a.png: " in capfd.readouterr().out
    assert evaluate(f"run={run}", f"images={tmp_path}/b.png") == 1
    assert "b.png does not exist" in capfd.readouterr().err


def test_ten_classes_fit_into_80_columns_below_their_names(evaluate, run, capfd):
    for dataset in ("mnist", "fashion"):
        assert evaluate(str(run), f"dataset={dataset}") == 0
        lines = capfd.readouterr().out.splitlines()
        assert all(len(line) <= 80 for line in lines)
        head = lines[-11].split()
        assert head[:4] == (
            ["0", "1", "2", "3"] if dataset == "mnist" else ["T-shi", "trous", "pullo", "dress"]
        )
        # each name ends where the numbers of its column end
        ends = [{m.end() for m in re.finditer(r"\S+", line)} for line in lines[-11:]]
        assert all(ends[0] <= others for others in ends[1:])


def draw(path: Path, size: tuple[int, int] = (90, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing = numpy.zeros(size, dtype=numpy.uint8)
    drawing[20:50, 25:35] = 255
    Image.fromarray(drawing).save(path)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_report_says_what_the_run_recorded(call, tmp_path, capfd):
    """Of a run that is right about some images and wrong about others."""
    assert call("script.py", "model=linear", "dataset=digits", "epochs=1", "limit=200") == 0
    (run,) = run_folders(tmp_path)
    before = contents(run)
    words = [str(run), f"report={run}/report", f"predictions={tmp_path}/new/own.csv"]
    assert call("evaluate.py", *words) == 0
    assert f"report: {run}/report/report.html" in capfd.readouterr().out
    after = contents(run)
    assert set(after) - set(before) == {"report/report.html", "report/predictions.csv"}
    assert before.items() <= after.items()
    result = json.loads(before["result.json"])
    assert 0.1 < result["test_accuracy"] < 0.999
    page = after["report/report.html"].decode()
    for key in ("test_accuracy", "test_loss"):
        assert page.count(f">{result[key]!r}<") == 2, key  # recorded, and computed again
    assert "The figures differ" not in page and f"{result['test_accuracy']:.2%} test acc" in page
    assert page.count(" taken for ") > 48  # pictures, and cells of the matrix
    rows = rows_of(run / "report/predictions.csv")
    assert sum(row["label"] == row["prediction"] for row in rows) / 200 == result["test_accuracy"]
    losses = [-math.log(float(row[f"p({row['label']})"])) for row in rows]
    assert sum(losses) / 200 == pytest.approx(result["test_loss"], rel=1e-6)
    assert (tmp_path / "new/own.csv").read_bytes() == after["report/predictions.csv"]
    assert call("evaluate.py", str(run)) == 0  # a run with a report is still a run


def test_a_report_of_an_interrupted_run_on_another_dataset(evaluate, run, tmp_path):
    alter(run, status="interrupted", test_accuracy=..., test_loss=..., data_sha256="0" * 64)
    (run / "metrics.csv").unlink()
    before = contents(run)
    assert evaluate(str(run), "dataset=fashion", f"report={tmp_path}/a/out") == 0
    page = (tmp_path / "a/out/report.html").read_text()
    assert "mlp trained on mnist, tested on fashion" in page and "interrupted" in page
    assert "No epoch has been recorded" in page
    assert contents(run) == before


@pytest.mark.parametrize(
    ("words", "message"),
    half_slow(
        [
            (
                ["report=RUN"],
                "is within a run folder, which evaluation leaves as it is: choose RUN/r",
            ),
            (["report=RUN/a/report"], "is within a run folder"),
            (["report=RUN/../run"], "is within a run folder"),
            (["report=linked/run/out"], "is within a run folder"),
            (["predictions=RUN/metrics.csv"], "as it is: choose RUN/report/metrics.csv, or"),
            pytest.param(["export=RUN/model.pt2"], "as it is: choose RUN/report/model.pt2, or"),
            (["predictions=other/metrics.csv"], "other/metrics.csv is within a run folder"),
            (["report=other"], "other is within a run folder"),
            (["predictions=out.txt"], "out.txt is not allowed: it must be the name of a .csv file"),
            (["predictions=RUN"], "it must be the name of a .csv file"),
            (["report=RUN/result.json"], "result.json is a file: give the name of a folder"),
            (["report=out", "images=[a.png]"], "report= and images= exclude each other"),
            (["export=a.pt2", "images=[a.png]"], "export= and images= exclude each other"),
            (["export=a.pt2", "predictions=a.csv"], "export= and predictions= exclude each other"),
            (["report="], "report= is empty"),
            (["images=[a.png]", "predictions="], "predictions= is empty"),
        ]
    ),
)
def test_nothing_is_written_into_the_record_of_a_run(
    evaluate, run, tmp_path, capfd, words, message
):
    (tmp_path / "linked").symlink_to(tmp_path)
    shutil.copytree(run, tmp_path / "other")
    before = contents(tmp_path)
    assert evaluate(str(run), *(word.replace("RUN", str(run)) for word in words)) == 1
    error = capfd.readouterr().err
    assert message.replace("RUN", str(run)) in error and "Traceback" not in error
    assert contents(tmp_path) == before


def test_a_report_follows_no_link(evaluate, run, tmp_path, capfd):
    (tmp_path / "secret").write_text("mine")
    (run / "report").mkdir()
    for name in ("report.html", "predictions.csv"):
        (run / "report" / name).symlink_to(tmp_path / "secret")
    assert evaluate(str(run), f"report={run}/report") == 0
    assert (tmp_path / "secret").read_text() == "mine"
    assert (run / "report/report.html").read_text().startswith("<!doctype html>")
    shutil.rmtree(run / "report")
    (run / "report").symlink_to(tmp_path)
    assert evaluate(str(run), f"report={run}/report") == 1
    assert "is a link" in capfd.readouterr().err


def test_pictures_are_files_folders_and_patterns(evaluate, run, tmp_path, capfd):
    for name in ("a,b.png", "b/d.png", "b/c/e.jpg", "x1.png", "x2.png"):
        draw(tmp_path / name)
    (tmp_path / "b/notes.txt").write_text("no picture")
    draw(tmp_path / "b/.hidden.png")
    words = "images=['a,b.png',b,x*.png,x1.png]"
    assert evaluate(str(run), words, "predictions=found.csv") == 0
    lines = capfd.readouterr().out.splitlines()
    said = [line.partition(": ")[0] for line in lines[:-1:2]]
    assert said == ["a,b.png", "b/c/e.jpg", "b/d.png", "x1.png", "x2.png"]
    assert lines[-1].endswith("found.csv: 5 pictures")
    rows = rows_of(tmp_path / "found.csv")
    assert [row["file"] for row in rows] == said and "label" not in rows[0]
    assert [row["prediction"] for row in rows] == [
        line.partition(": ")[2].split()[0] for line in lines[:-1:2]
    ]
    for row in rows:
        probabilities = {key: float(row[key]) for key in row if key.startswith("p(")}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert max(probabilities, key=probabilities.get) == f"p({row['prediction']})"


def test_one_picture_was_not_classified(evaluate, run, capfd):
    assert evaluate(str(run), "images=missing.png") == 1
    assert "1 of 1 was not classified: missing.png." in capfd.readouterr().err


def test_pictures_that_cannot_be_read_do_not_stop_the_others(evaluate, run, tmp_path, capfd):
    draw(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_bytes(b"no picture")
    draw(tmp_path / "in/c.png")
    (tmp_path / "empty").mkdir()
    words = "images=[in,missing.png,*.tif,empty," + "x" * 300 + ".png]"
    assert evaluate(str(run), words, "predictions=found.csv") == 1
    out, error = capfd.readouterr()
    assert "in/a.png: " in out and "in/c.png: " in out
    for message in (
        "in/b.png cannot be read as a picture", "missing.png does not exist", "Traceback",
        "*.tif matches no picture", "empty has no picture in it", "5 of 7 were not classified: ",
        "cannot be read (File name too long)",
    ):  # fmt: skip
        assert (message in error) == (message != "Traceback"), message
    assert [row["file"] for row in rows_of(tmp_path / "found.csv")] == ["in/a.png", "in/c.png"]


def test_without_a_picture_no_file_is_written(evaluate, run, tmp_path):
    assert evaluate(str(run), "images=missing.png", "predictions=found.csv") == 1
    assert not (tmp_path / "found.csv").exists()


@pytest.mark.slow
def test_the_commands_as_they_are_typed(trained, tmp_path, data_dir):
    run = Path(shutil.copytree(trained, tmp_path / "runs/model=mlp,seed=0-1"))
    draw(tmp_path / "pictures/a.png")
    (tmp_path / "pictures/b.png").write_bytes(b"no picture")
    for code, words in [
        (0, [f"{run.relative_to(tmp_path)}/", "report=out"]),
        (1, ["last", "images=pictures/*.png", "predictions=found.csv"]),
        (1, ["runs"]),
    ]:
        command = [sys.executable, str(PROJECT / "evaluate.py"), *words]
        environment = os.environ | {"DATA_DIR": str(data_dir)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert "runs is not a run folder" in done.stderr
    assert (tmp_path / "out/report.html").exists()
    assert [row["file"] for row in rows_of(tmp_path / "found.csv")] == ["pictures/a.png"]


# Each function damages a run folder; the string is part of the resulting error message.


def edit(run: Path, **changes) -> None:
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        node, *rest = key.split("__")
        target = config
        for part in [node, *rest][:-1]:
            target = target[part]
        target[[node, *rest][-1]] = value
    path.write_text(yaml.safe_dump(config))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/the-bomb-went-off",)


def add(run: Path, name: str, text: str) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text(text)


def alter(run: Path, **changes) -> None:
    """Change values in `result.json`; keys whose new value is `...` are removed."""
    result = json.loads((run / "result.json").read_text()) | changes
    result = {key: value for key, value in result.items() if value is not ...}
    (run / "result.json").write_text(json.dumps(result))


def with_attributes(weights: dict) -> OrderedDict:
    """Weights and one more, in a dictionary whose methods the file replaces by a number."""
    ordered = OrderedDict(weights | {"extra": torch.zeros(1)})
    vars(ordered).update(_metadata=5, keys=5, get=5)
    return ordered


DAMAGES = [
    (lambda run: shutil.rmtree(run), "is not a folder"),
    (lambda run: (run / "config.yaml").unlink(), "is not a run folder: it has no config.yaml"),
    (lambda run: (run / "result.json").unlink(), "is not a run folder: it has no result.json"),
    (lambda run: (run / "result.json").write_text("{"), "cannot be read as JSON"),
    (lambda run: (run / "result.json").write_text("[]"), "result.json is damaged"),
    (lambda run: (run / "config.yaml").write_text("a: ["), "config.yaml is damaged"),
    (lambda run: (run / "config.yaml").write_text(""), "is not"),
    (lambda run: (run / "config.yaml").write_text("- 1"), "config.yaml is damaged"),
    (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\0"), "config.yaml is damaged"),
    (lambda run: edit(run, hydra={"callbacks": {}}), "hydra is not a key of one"),
    (lambda run: edit(run, defaults=["model: mlp"]), "defaults is not a key of one"),
    (lambda run: edit(run, model___target_="os.system"), "_target_"),
    (lambda run: edit(run, model={"_target_": "os.system"}), "names _target_=os.system"),
    (lambda run: edit(run, model={"_target_": "models.nn.Linear"}), "_target_=models.nn.Linear"),
    (lambda run: edit(run, optimizer={"_target_": "torch.load"}), "_target_=torch.load"),
    (
        lambda run: edit(run, dataset__source={"_target_": "builtins.eval"}),
        "_target_=builtins.eval",
    ),
    (
        lambda run: edit(run, model__hidden_sizes=[{"_target_": "subprocess.run"}]),
        "_target_=subprocess.run",
    ),
    (lambda run: edit(run, data_dir="${oc.env:HOME}"), "which a run folder must not"),
    (lambda run: edit(run, data_dir="../../etc"), "which a run folder must not"),
    (lambda run: edit(run, epochs="many"), "epochs=many is not allowed: it must be a whole number"),
    (lambda run: edit(run, epochs=0), "epochs=0 is not allowed"),
    (lambda run: edit(run, device="moon"), "device=moon is not allowed"),
    (lambda run: edit(run, model__dropout=7), "dropout=7"),
    (lambda run: (run / "extra").symlink_to("/etc/passwd"), "is a link"),
    (lambda run: alter(run, status=...), "status is missing"),
    (lambda run: alter(run, status="done"), "status='done' cannot be"),
    (lambda run: alter(run, status=["finished"]), "status=['finished'] cannot be"),
    (lambda run: alter(run, status="finished", epochs="x"), "epochs='x' cannot be"),
    (lambda run: alter(run, status="finished", epochs=...), "epochs is missing"),
    (lambda run: alter(run, status="finished", test_accuracy=...), "test_accuracy is missing"),
    (lambda run: alter(run, test_accuracy=10**400), "test_accuracy=1000"),
    (lambda run: alter(run, val_accuracy=float("nan")), "val_accuracy=nan cannot be"),
    (lambda run: alter(run, overrides=None), "overrides=None cannot be"),
    (lambda run: alter(run, overrides=[1]), "overrides=[1] cannot be"),
    (lambda run: alter(run, earlier={}), "earlier={} cannot be"),
]
CHECKPOINTS = [
    (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint"),
    (lambda path: path.write_bytes(path.read_bytes()[:-300]), "cannot be read as a checkpoint"),
    (lambda path: path.write_bytes(b"PK\x03\x04 nothing"), "cannot be read as a checkpoint"),
    (lambda path: path.write_bytes(pickle.dumps(Bomb())), "cannot be read as a checkpoint"),
    (lambda path: torch.save({"model": Bomb()}, path), "cannot be read as a checkpoint"),
    (lambda path: torch.save([1], path), "is not a checkpoint"),
    (lambda path: torch.save({"model": {}}, path), "another model: head.bias is missing"),
    (lambda path: path.unlink(), "best.pt does not exist: a run writes it when its first epoch"),
    (lambda path: torch.save({"model": [1]}, path), "its weights have no names"),
    (
        lambda path: torch.save({"model": torch.load(path)["model"] | {"head.bias": 3}}, path),
        "head.bias of int instead of (10,)",
    ),
    (
        lambda path: torch.save({"model": with_attributes(torch.load(path)["model"])}, path),
        "is a checkpoint of another model: extra is unexpected",
    ),
    (
        lambda path: torch.save({"model": {"head.bias": torch.nested.nested_tensor([])}}, path),
        "cannot be read as a checkpoint",
    ),
]


def ids(value) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("damage", "message"), half_slow(DAMAGES), ids=ids)
@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_a_damaged_or_hostile_run_folder_is_refused(
    script, evaluate, run, capfd, command, damage, message
):
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    damage(run)
    before = contents(run)
    code = evaluate(f"run={run}") if command == "evaluate" else script(f"resume={run}")
    output = "".join(capfd.readouterr())
    assert code == 1
    assert message in output and "Traceback" not in output
    assert contents(run) == before
    assert not os.path.exists("/tmp/the-bomb-went-off")


@pytest.mark.parametrize(("damage", "message"), half_slow(CHECKPOINTS), ids=ids)
def test_a_damaged_or_hostile_checkpoint_is_refused(evaluate, run, capfd, damage, message):
    damage(run / "best.pt")
    before = contents(run)
    assert evaluate(f"run={run}") == 1
    output = "".join(capfd.readouterr())
    assert message in output and "Traceback" not in output
    assert contents(run) == before
    assert not os.path.exists("/tmp/the-bomb-went-off")


@pytest.mark.parametrize(("damage", "message"), half_slow(CHECKPOINTS[:6]), ids=ids)
def test_a_damaged_or_hostile_checkpoint_is_not_resumed(script, run, capfd, damage, message):
    path = run / "last.pt"
    damage(path)
    before = contents(run)
    assert script(f"resume={run}", "epochs=9") == 1
    output = "".join(capfd.readouterr())
    assert message in output and "Traceback" not in output
    assert contents(run) == before
    assert not os.path.exists("/tmp/the-bomb-went-off")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_not_a_picture_is_refused(evaluate, run, tmp_path, capfd, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert evaluate(f"run={run}", f"images=[{path}]") == 1
    error = capfd.readouterr().err
    assert "a.png cannot be read as a picture" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("5", "5 does not exist: give the path of a picture"),
        ("[null]", "null does not exist: give the path"),
        ("{a:1}", "{a:1} does not exist: give the path"),
    ],
)
def test_images_that_are_no_paths_are_refused(evaluate, run, capfd, value, message):
    assert evaluate(f"run={run}", f"images={value}") == 1
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run=FOLDER is missing"),
        (["run=/nowhere"], "/nowhere is not a folder"),
        (["runn=/nowhere"], "Did you mean run?"),
        (["run=/nowhere", "dataset=mnits"], "Did you mean mnist?"),
        (["images=[a.png]"], "run=FOLDER is missing"),
    ],
)
def test_invalid_arguments_are_refused(evaluate, capfd, arguments, message):
    assert evaluate(*arguments) == 1
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error


CALLBACKS = """# @package _global_
defaults: [/hydra/job_logging/default]
hydra:
  callbacks:
    bomb: {{_target_: torch.hub.load, repo_or_dir: {folder}, model: bomb, source: local}}
"""
LOGGING = """version: 1
handlers: {{file: {{class: logging.FileHandler, filename: {folder}/best.pt, mode: w}}}}
root: {{handlers: [file]}}
"""


@pytest.mark.parametrize("text", [CALLBACKS, LOGGING])
def test_config_groups_in_a_run_folder_are_never_read(script, run, text):
    add(run, "hubconf.py", "open('/tmp/the-bomb-went-off', 'w')\ndef bomb(*_, **__): pass")
    for group in ("job_logging/practical", "help/practical", "output/default"):
        add(run, f"hydra/{group}.yaml", text.format(folder=run))
    weights = (run / "best.pt").read_bytes()
    assert script(f"resume={run}") == 0
    assert (run / "best.pt").read_bytes() == weights
    assert not os.path.exists("/tmp/the-bomb-went-off")


NAMES = [
    "model=linear,seed=0-32dd9dff", "back\\slash", "ends\\", "it's", "\\'", "a b", "[1,2]", '"ü"',
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if i % 2 else []) for i, n in enumerate(NAMES)],
)
def test_run_folders_may_have_any_name(script, evaluate, trained, tmp_path, capfd, name):
    (tmp_path / name).mkdir()
    run = Path(shutil.copytree(trained, tmp_path / name / "run"))
    assert evaluate(f"run={run}") == 0
    assert "the run recorded" in capfd.readouterr().out
    assert script(f"resume={run}") == 0
    assert f"{run} is finished after epoch 4" in capfd.readouterr().out


def test_folder_names_are_not_interpolated(script, evaluate, capfd):
    for command, key in ((script, "resume"), (evaluate, "run")):
        assert command(f"{key}=a${{x}}") == 1
        error = capfd.readouterr().err
        assert "a${x}" in error and "Traceback" not in error


def test_relative_and_home_paths_of_runs_are_accepted(script, run, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in (f"{run}/", "~/run", "run", "./run/../run"):
        assert script(f"resume={written}") == 0
        assert "is finished after epoch 4" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=/nowhere"], "/nowhere is not a folder"),
        (["resume=/nowhere", "--multirun"], "resume=FOLDER resumes a single run"),
        (["resume=/nowhere", "-m"], "resume=FOLDER resumes a single run"),
        (["resume=/nowhere", "--multi"], "resume=FOLDER resumes a single run"),
        (["resume=/nowhere", "hydra.mode=MULTIRUN", "epochs=3,4"], "leave --multirun and hydra.m"),
        (["resume=/nowhere", "hydra={mode:MULTIRUN}"], "leave --multirun and hydra.mode out"),
        (["resume=/nowhere", "++hydra.mode=MULTIRUN"], "leave --multirun and hydra.mode out"),
        (["resume=/nowhere", "scheduler=cosine"], "a resumed one keeps its scheduler"),
        (["resume=/nowhere", "+model=cnn"], "a resumed one keeps its model"),
        (["resume=/nowhere", "~optimizer"], "a resumed one keeps its optimizer"),
        (["resume=/nowhere", "debug=smoke"], "like epochs=20 or optimizer.lr=0.001"),
    ],
)
def test_invalid_arguments_to_resume_are_refused(script, tmp_path, capfd, arguments, message):
    assert script(*arguments) == 1
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_evaluate_refuses_a_sweep(evaluate, tmp_path, capfd, word):
    assert evaluate("run=/nowhere", word) == 1
    assert "evaluate.py evaluates a single run" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    half_slow(
        [
            (["epocs=9"], "Did you mean epochs?"),
            (["epochs=many"], "epochs=many is not allowed"),
            (["epochs=9", "model.hidden_sizes=[9]"], "is a checkpoint of another model"),
            (["epochs=9", "model.hidden_sizes=[0]"], "every size must be"),
            (["epochs=9", "seed=-1"], "seed=-1 is not allowed"),
            (["epochs=9", "batch_size=0"], "batch_size=0 is not allowed"),
            (["epochs=9", "optimizer.betas=[2,3]"], "Invalid beta"),
            (
                ["epochs=9", "optimizer._target_=torch.optim.SGD"],
                "is not an argument of torch.optim",
            ),
            (["epochs=9", "+optimizer.amsgrad=true"], "its optimizer is of another type"),
            (["epochs=9", "device=mps"], "device=mps is not on this machine"),
            (["epochs=9", "data_dir=nothing"], "could not be"),
            (["epochs=3,4"], "epochs=3,4"),
        ]
    ),
)
def test_refused_overrides_leave_the_run_unchanged(
    script, run, capfd, monkeypatch, overrides, message
):
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [])
    before = contents(run)
    assert script(f"resume={run}", *overrides) == 1
    output = "".join(capfd.readouterr())
    assert message in output and "Traceback" not in output
    assert contents(run) == before


def test_the_error_for_a_read_only_run_folder_names_it(script, run, capfd, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _: path != run)
    before = contents(run)
    assert script(f"resume={run}", "epochs=9") == 1
    assert f"{run} cannot be written to: make it writable" in capfd.readouterr().err
    assert contents(run) == before
