"""Command lines: names are taken as they are typed, and what has no effect is refused."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT
from hydra.core.override_parser.overrides_parser import OverridesParser

from lab import command_line
from lab.errors import ConfigError

NAMES = [
    "plain", "a=b", "a b", "it's", "'", '"', "a(b)", "~x", "ü é 日本", "a,b", "[a]", "{a}", "x:y",
    "a\\b", "a\\", "\\'", "'a' 'b'", "1e3", "true", "a#b", "a$b", "a&b;c|d", "%", "*?", "a\tb",
    "'a", 'b"', "<a>", "!", "@x", "+x", "-m", "choice(a,b)", "2026-11-23/14-05-31.4_x=(1)",
]  # fmt: skip


def taken(script, *arguments: str) -> object:
    """The value of the last argument, as Hydra takes it."""
    last = script(["script.py", *arguments])[-1]
    value = OverridesParser.create().parse_override(last).value()
    values = value if isinstance(value, list) else [value]
    texts = [getattr(each, "text", each) for each in values]  # of quoted strings
    return texts if isinstance(value, list) else texts[0]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_as_they_are_typed(name):
    for_script, for_evaluate = command_line.for_script, command_line.for_evaluate
    assert taken(for_evaluate, f"run={name}") == name
    for key in ("data_dir", "++data_dir", "hydra.run.dir"):
        assert taken(for_script, f"{key}={name}") == name
    if "," not in name:  # in a sweep, a comma separates values, and in a list, items
        assert taken(for_script, "-m", f"name={name}") == name
        assert taken(for_script, "-m", f"hydra.sweep.dir={name}") == name
        assert taken(for_evaluate, f"images=[{name}, b (1).png]") == [name, "b (1).png"]
    if name != "[a]":
        assert taken(for_evaluate, f"images=['a,b',{command_line.quoted(name)}]") == ["a,b", name]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("data_dir=null", None),
        ("data_dir='a b'", "a b"),  # quoted for Hydra already
        ('data_dir="a=b"', "a=b"),
        ("data_dir=${oc.env:HOME}/a=b", "${oc.env:HOME}/a=b"),  # which Hydra resolves
        ("images=[]", []),
        ("images=a=b.png", "a=b.png"),
        ("images=a.png,b c.png", ["a.png", "b c.png"]),
        ("hydra.run.dir=~/a=b", os.path.expanduser("~/a=b")),
    ],
)
def test_what_hydra_understands_keeps_its_meaning(typed, value):
    assert taken(command_line.for_evaluate, typed) == value


def test_several_folders_are_several_values_in_a_sweep():
    last = command_line.for_script(["script.py", "-m", "data_dir=a b,c=d"])[-1]
    override = OverridesParser.create().parse_override(last)
    assert list(override.sweep_string_iterator()) == ["'a b'", "'c=d'"]


@pytest.mark.parametrize(
    "arguments", [["a=1", "-m", "b=2"], ["-m", "a=1", "b=2"], ["a=1", "b=2", "--multirun"]]
)
def test_flags_may_stand_anywhere(arguments):
    _, flag, *overrides = command_line.for_script(["script.py", *arguments])
    assert flag in ("-m", "--multirun") and overrides == ["a=1", "b=2"]


SWEEP_ONLY = "has an effect only in a sweep: add --multirun, or"
REFUSALS = [
    (["name=mine"], f"name=mine {SWEEP_ONLY} name the folder of this run with hydra.run.dir="),
    (["++name=a b"], f"++name=a b {SWEEP_ONLY} name the folder"),
    (["sweep=practical"], f"sweep=practical {SWEEP_ONLY} leave it out"),
    (["hydra/sweeper=optuna"], f"hydra/sweeper=optuna {SWEEP_ONLY} leave it out"),
    (["hydra/sweeper/pruner=median"], SWEEP_ONLY),
    (["hydra.sweeper.n_trials=3"], SWEEP_ONLY),
    (["hydra/launcher=slurm"], f"hydra/launcher=slurm {SWEEP_ONLY} leave it out"),
    (["hydra.launcher.parallel=2"], SWEEP_ONLY),
    (["hydra.sweep.dir=found"], SWEEP_ONLY),
    (["fail_fast=true"], SWEEP_ONLY),
    (["-m", "hydra.run.dir=mine"], "hydra.run.dir=mine is the folder of a single run: name "),
    (["hydra.mode=MULTIRUN", "hydra.run.dir=mine"], "is the folder of a single run"),
    (["resume=/nowhere", "hydra.run.dir=a b"], "hydra.run.dir=a b is not allowed with resume="),
    (["resume=/nowhere", "hydra.output_subdir=x"], "not allowed with resume=FOLDER"),
    (["resume=/nowhere", "name=mine"], SWEEP_ONLY),
    (["resume=/nowhere", "hydra/launcher=local"], SWEEP_ONLY),
    (["resume=/a", "resume=/b"], "resume=FOLDER resumes one run: give one folder"),
    (["resume="], "give one folder"),
    (["trial=3"], "trial=3 has an effect only in a sweep: add --multirun, or leave it out"),
    (["hydra.run.dir="], "hydra.run.dir= is not allowed: it must name a folder"),
    (["data_dir="], "data_dir= is empty"),
    (["-m", "name="], "name= is empty"),
    (["--lr=0.1"], "--lr=0.1 is not an option: write lr=0.1 to set a value"),
    (["--epochs", "3"], "--epochs is not an option: write epochs=3 to set a value"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=lambda value: " ".join(value))
def test_what_would_have_no_effect_is_refused(arguments, message):
    with pytest.raises(ConfigError) as refused:
        command_line.for_script(["script.py", *arguments])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "name=mine", "hydra/launcher=local", "hydra.launcher.parallel=2"],
        ["hydra.mode=MULTIRUN", "sweep=practical"],
        ["hydra={mode:MULTIRUN}", "sweep=practical"],
        ["--cfg", "job", "sweep=practical"],
        ["--help", "hydra/sweeper=optuna"],
        ["sweep=null", "~trial"],
        ["trial=null", "checkpoint.every=2"],
    ],
    ids=" ".join,
)
def test_what_has_an_effect_is_accepted(arguments):
    assert len(command_line.for_script(["script.py", *arguments])) == 1 + len(arguments)


@pytest.mark.parametrize("arguments", [["name=mine"], ["resume=a", "hydra.run.dir=b"], ["lr=1"]])
def test_refusals_write_nothing_and_do_not_import_torch(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", PROJECT / "script.py", *arguments],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 1 and "hydra" in imported and "torch" not in imported
    assert list(tmp_path.iterdir()) == []


STRANGE = "it's a=b (1) ~ü"


def test_strange_names_work_from_the_data_to_the_pictures(
    script, evaluate, tmp_path, data_dir, capfd
):
    shutil.copytree(data_dir, tmp_path / STRANGE)
    run = tmp_path / f"run {STRANGE}"
    where = (f"data_dir={STRANGE}", f"hydra.run.dir={run}")
    assert script("debug=smoke", "model=linear", *where) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data_dir"] == str(tmp_path / STRANGE)
    assert script(f"resume={run}", "epochs=2", where[0]) == 0
    picture = shutil.copy(PROJECT / "benchmarks/practical.png", tmp_path / f"{STRANGE}.png")
    capfd.readouterr()
    assert evaluate(f"run={run}", f"images=[{picture},{STRANGE}.png]") == 0
    assert capfd.readouterr().out.count(f"{STRANGE}.png: ") == 2
    assert evaluate(f"run={run}", f"data_dir={STRANGE}") == 0


def test_a_resumed_run_finds_its_data_where_data_dir_says(
    script, tmp_path, data_dir, monkeypatch, capfd
):
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(data_dir, old)
    monkeypatch.setenv("DATA_DIR", str(old))
    assert script("debug=smoke", "model=linear", "hydra.run.dir=run") == 0
    old.rename(new)
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:9/"])
    for arguments in (["epochs=2"], ["epochs=2", f"data_dir={tmp_path / 'else where'}"]):
        monkeypatch.setattr("sources._loaded", {})
        assert script("resume=run", *arguments) == 1  # DATA_DIR is the old folder
        assert re.search("raw/train-.*gz is missing.*set data_dir", capfd.readouterr().err)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "run"}  # no folder was made
    monkeypatch.setenv("DATA_DIR", str(new))
    assert script("resume=run", "epochs=2") == 0
    told = f"{old}, where this run found its images, does not exist: reading DATA_DIR={new}."
    assert told in capfd.readouterr().out
    run = tmp_path / "run"
    assert yaml.safe_load((run / "config.yaml").read_text())["data_dir"] == str(new)
    assert json.loads((run / "result.json").read_text())["epochs"] == 2


@pytest.fixture
def elsewhere(script, tmp_path, data_dir) -> Path:
    """A run whose images were in a folder of its own."""
    shutil.copytree(data_dir, tmp_path / "images")
    assert script("debug=smoke", "model=linear", "hydra.run.dir=run", "data_dir=images") == 0
    return tmp_path / "images"


def recorded(tmp_path: Path) -> str:
    return yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data_dir"]


def test_the_users_own_data_dir_is_read_instead_of_that_of_the_run_folder(
    script, tmp_path, elsewhere, data_dir, capfd
):
    assert recorded(tmp_path) == str(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    (elsewhere / ".lock").unlink()
    assert script("resume=run", "epochs=2") == 0
    told = f"This run found its images in {elsewhere}: now reading DATA_DIR={data_dir}."
    assert told in capfd.readouterr().out
    assert recorded(tmp_path) == str(data_dir)
    assert sorted(elsewhere.rglob("*")) == [path for path in before if path.name != ".lock"]


def test_a_folder_that_nobody_has_chosen_is_not_read(
    script, tmp_path, elsewhere, monkeypatch, capfd
):
    monkeypatch.delenv("DATA_DIR")
    assert script("resume=run", "epochs=2") == 1
    error = capfd.readouterr().err
    assert f"add data_dir={elsewhere}, or set DATA_DIR." in error and "Traceback" not in error
    assert script("resume=run", "epochs=2", f"data_dir={elsewhere}") == 0
    assert script("resume=run", "epochs=3", "trust=true") == 0
    assert recorded(tmp_path) == str(elsewhere)


def test_the_hint_after_an_interrupt_has_the_data_dir_that_was_chosen(
    script, tmp_path, elsewhere, monkeypatch, capfd
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    words = ("debug=smoke", "model=linear", "hydra.run.dir=other")
    with monkeypatch.context() as patch:
        patch.setattr("training.train_epoch", interrupt)
        assert script(*words, "data_dir=images") == 130
    monkeypatch.delenv("DATA_DIR")
    (line,) = [ln for ln in capfd.readouterr().out.splitlines() if ln.startswith("Resume with: ")]
    _, script_file, *hinted = shlex.split(line.partition(": ")[2])
    assert script_file == "script.py" and hinted[1:] == [f"data_dir={elsewhere}"]
    assert script(*hinted) == 0


@pytest.mark.parametrize("key", ["images", "report", "predictions", "export", "device"])
def test_evaluate_takes_each_key_once(key):
    with pytest.raises(ConfigError, match=f"{key}= is given 2 times"):
        command_line.for_evaluate(["evaluate.py", "run=a", f"{key}=b", f"{key}=c"])
