"""Trackers: what they are told, that they cannot harm a run, and what a run folder may choose."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import apart, composed, run_folders
from fake_trackers import Told
from hydra.utils import instantiate

from lab import command_line, extras, schema, tracker_wandb, trackers
from lab.errors import Refusal, explain

slow = pytest.mark.slow
TINY = ("dataset=digits", "model=linear", "limit=32", "batch_size=32", "epochs=3")
TINY += ("scheduler=constant", "hydra.run.dir=run")


def fake(kind: str = "Told", name: str = "a", **arguments) -> list[str]:
    """The overrides that choose a tracker of the tests' own."""
    values = {"_target_": f"fake_trackers.{kind}", "path": f"{name}.jsonl"} | arguments
    return [f"+logger.{name}.{key}={value}" for key, value in values.items()]


def told(name: str = "a") -> list:
    return Told(f"{name}.jsonl").calls()


def epochs(name: str = "a") -> list[int]:
    return [call[2] for call in told(name) if call[0] == "log"]


def result() -> dict:
    return json.loads(Path("run/result.json").read_text())


def metrics() -> list[dict]:
    with Path("run/metrics.csv").open() as file:
        return list(csv.DictReader(file))


def warnings(capfd) -> list[str]:
    return [line for line in capfd.readouterr().out.splitlines() if "logger=" in line]


def test_by_default_there_is_none(script, monkeypatch):
    assert composed().logger == {}
    monkeypatch.setattr(trackers, "generators_kept", None)  # it would be called
    monkeypatch.setattr(trackers, "hyperparameters", None)
    assert script(*TINY) == 0
    assert "tracker_id" not in result()


def test_several_are_told_the_same_by_the_names_that_their_users_expect(script):
    assert script(*TINY, *fake(), *fake("Drawing", "b")) == 0
    assert told("a") == told("b")
    (start, *logs, end), id = told(), result()["tracker_id"]
    assert start[:4] == ["start", "run", None, 0] and start[-1] == id
    config = start[4]
    assert config["optimizer.lr"] == composed(*TINY[:2]).optimizer.lr and config["epochs"] == 3
    assert config["model._target_"] == "models.Linear" and config["dataset.mean"][0] == "["
    assert not any(key.startswith(("logger", "name", "data_dir")) for key in config)
    assert all(type(value) in (bool, int, float, str) for value in config.values())
    for row, (_, figures, epoch, _) in zip(metrics(), logs, strict=True):
        assert epoch == int(row["epoch"])
        assert figures["val/accuracy"] == float(row["val_accuracy"])
        assert figures["train/loss"] == float(row["train_loss"])
        assert figures["lr"] == float(row["lr"])
    accuracy = result()["test_accuracy"]
    assert end[1]["test/accuracy"] == accuracy and end[2:5] == [3, "finished", None]


@slow
def test_the_results_do_not_depend_on_trackers(script, tmp_path):
    words = (*TINY, "augmentation=shift", "model=mlp", "model.dropout=0.3")
    words = [word for word in words if word != "model=linear"]
    figures = []
    for tracker in ([], fake("Drawing")):
        assert script(*words, *tracker) == 0
        figures.append([(row["train_loss"], row["val_loss"]) for row in metrics()])
        Path("run").rename(f"run{len(figures)}")
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    "lost",
    [pytest.param([0], marks=slow, id="never there"), pytest.param([2], id="gone and back")],
)
def test_a_tracker_that_fails_is_one_warning(script, capfd, lost):
    words = (*fake("Failing", "a", epochs=lost), *fake("Told", "b"))
    assert script(*TINY, *words) == 0
    (warning,) = warnings(capfd)
    assert "logger=a failed" in warning and "server" in warning
    assert "WARNING" in Path("run/script.log").read_text()
    assert result()["status"] == "finished"
    assert epochs("b") == [1, 2, 3]
    # What a server has missed, it gets at the end, if it is there.
    assert epochs("a") == ([] if lost == [0] else [1, 2, 3])
    assert ("end" in [call[0] for call in told("a")]) == (lost == [2])


def test_a_tracker_that_hangs_is_not_waited_for(script, capfd, monkeypatch):
    monkeypatch.setattr(trackers, "LOG", 0.1)
    assert script(*TINY, *fake("Failing", "a", seconds=20)) == 0
    (warning,) = warnings(capfd)
    assert "no answer within" in warning
    assert result()["status"] == "finished" and result()["seconds"] < 10


def test_a_resumed_run_continues_the_same_tracker_run(script):
    assert script(*TINY, *fake()) == 0
    id = result()["tracker_id"]
    assert script("resume=run", "epochs=5", "trust=true") == 0
    assert result()["tracker_id"] == id == told()[-1][-1]
    assert epochs() == [1, 2, 3, 4, 5]
    assert [call[3] for call in told() if call[0] == "start"] == [0, 3]


@slow
def test_a_tracker_that_is_chosen_later_gets_all_epochs(script):
    assert script(*TINY) == 0
    assert script("resume=run", "epochs=4", *fake()) == 0
    assert epochs() == [1, 2, 3, 4]


@slow
def test_a_run_that_fails_says_why(script):
    words = ("optimizer=sgd", "optimizer.lr=1e30")
    assert script(*TINY, *words, *fake()) == 1
    call, _, epoch, status, reason, _ = told()[-1]
    assert (call, epoch, status) == ("end", 0, "failed") and reason == result()["reason"]


@slow
def test_each_job_of_a_sweep_closes_its_own_run(script, tmp_path):
    words = [word for word in TINY if not word.startswith(("hydra.run", "epochs"))]
    assert script("-m", "name=lr/first", *words, "epochs=1", "seed=0,1", *fake()) == 0
    assert [call[0] for call in told()] == ["start", "log", "end"] * 2
    starts = [call for call in told() if call[0] == "start"]
    assert {call[1] for call in starts} == {folder.name for folder in run_folders(tmp_path)}
    assert {call[2] for call in starts} == {"lr/first"}
    assert len({call[-1] for call in told()}) == 2
    # A job that is resumed by itself is still one of the sweep.
    folder = run_folders(tmp_path)[0]
    assert script(f"resume={folder}", "epochs=2", "trust=true") == 0
    assert [call[2] for call in told() if call[0] == "start"] == ["lr/first"] * 3


def test_a_package_that_is_missing_is_named_before_any_work(script, monkeypatch, capfd):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda module: None)
    assert script("logger=mlflow", "debug=smoke", "hydra.run.dir=run") == 1
    output = "".join(capfd.readouterr())
    assert "logger=mlflow needs the package mlflow" in output and "Traceback" not in output
    assert not Path("run/metrics.csv").exists()
    cfg = composed("logger=[tensorboard,mlflow,wandb,trackio]")
    for name in cfg.logger:
        with pytest.raises(Exception, match=r"pip install -r env/requirements-trackers\.txt"):
            instantiate(cfg.logger[name])


def test_names_of_figures():
    figures = {"epoch": 1, "train_loss": 2, "val_accuracy": 3, "lr": 4, "images_per_second": 5}
    names = {"train/loss": 2, "val/accuracy": 3, "lr": 4, "images_per_second": 5}
    assert trackers.named(figures) == names


# What a run folder, which may come from a stranger, may say of trackers.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with apart(folder, data_dir) as call:
        assert call("script.py", *TINY, "epochs=1") == 0
    return folder / "run"


@pytest.fixture
def folder(script, finished) -> Path:
    return Path(shutil.copytree(finished, "run"))


def record(folder: Path, logger: object) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"logger": logger}
    (folder / "config.yaml").write_text(yaml.dump(config))


def refusal(*words: str) -> str:
    """The sentence by which a command is refused before Hydra starts."""
    with pytest.raises(Refusal) as caught:
        command_line.for_script(["script.py", *words])
    return str(caught.value)


EVIL = {"_target_": "fake_trackers.Told"}


def test_a_run_folder_names_no_class(script, evaluate, folder):
    record(folder, {"evil": EVIL | {"path": "evil.jsonl"}})
    sentence = refusal("resume=run", "epochs=2")
    assert "logger=evil" in sentence and "is none of" in sentence and "logger=none" in sentence
    assert evaluate("run=run") == 0  # which starts no tracker
    assert script("resume=run", "epochs=2", "logger=none") == 0
    assert not Path("evil.jsonl").exists()


def test_the_class_of_a_tracker_is_that_of_its_file(script, folder, capfd, monkeypatch):
    record(folder, {"tensorboard": EVIL})
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda module: None)
    assert script("resume=run", "epochs=2") == 1
    assert "the package tensorboard" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "settings", "override"),
    [
        ("mlflow", {"tracking_uri": "http://evil"}, "logger.mlflow.tracking_uri=http://evil"),
        ("mlflow", {"tracking_uri": "${oc.env:HOME}"}, "logger.mlflow.tracking_uri="),
        ("wandb", {"entity": "theirs", "project": "open"}, "logger.wandb.entity=theirs"),
        pytest.param("mlflow", {"unknown": 3}, "logger.mlflow.unknown=3", marks=slow),
        pytest.param("trackio", {"project": "x"}, "logger.trackio.project=x", marks=slow),
    ],
)
def test_a_run_folder_does_not_choose_where_figures_are_sent(folder, name, settings, override):
    record(folder, {name: {"_target_": "fake_trackers.Told"} | settings})
    sentence = refusal("resume=run", "epochs=2")
    assert "does not choose where figures are sent" in sentence and override in sentence
    given = [f"logger.{name}.{key}=mine" for key in settings]
    for words in (["logger=none"], [f"logger={name}"], given):
        command_line.for_script(["script.py", "resume=run", *words])


def test_a_run_folder_has_no_settings_for_wandb(folder, monkeypatch):
    """W&B reads wandb/settings in the current folder, which hydra.job.chdir=true moves there."""
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda module: True)
    (folder / "wandb").mkdir()
    (folder / "wandb/settings").write_text("[default]\nbase_url = http://evil\n")
    described = trackers.Description("ab" * 6, "run", None, folder, {}, 0)
    with pytest.raises(ValueError, match=r"wandb/settings would choose a server: remove it"):
        tracker_wandb.WandB("practical").start(described)


@pytest.mark.parametrize("logger", ["evil", ["evil"], {"mlflow": None}, {"../x": {}}, {1: {}}, 5])
def test_a_damaged_choice_of_trackers_is_refused_or_ignored(folder, logger):
    record(folder, logger)
    try:
        words = command_line.for_script(["script.py", "resume=run", "epochs=2"])
    except Refusal as error:
        assert "is none of" in str(error) or "is not a group" in str(error)
    else:
        assert "epochs=2" in words


@pytest.mark.parametrize("id", ["../x", "A" * 12, "", 5, None, "a' or '1'='1"])
def test_the_id_of_a_run_is_checked(folder, id):
    (folder / "result.json").write_text(json.dumps(result() | {"tracker_id": id}))
    assert "tracker_id=" in refusal("resume=run", "epochs=2")


def test_the_command_that_resumes_has_the_settings(script, monkeypatch, capfd):
    from lab import resume

    words = ("logger=[tensorboard,wandb]", "logger.wandb.mode=offline", "logger.wandb.project=x")
    command = resume.command(Path("run"), composed(*words))
    assert re.search(r"logger.wandb.project=x logger.wandb.mode=offline$", command)
    assert "logger" not in resume.command(Path("run"), composed("logger=wandb"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["logger=wanbd"], "Did you mean wandb"),
        (["logger.wandb.project=x"], "Only logger=wandb has it."),
        (["+logger.mine=3"], "must name a class with _target_"),
        (["wandb=true"], "logger=tensorboard"),
    ],
)
def test_misspelt_choices_are_explained(words, message):
    with pytest.raises(Exception) as caught:
        schema.check(composed(*words))
    assert message in explain(caught.value)
