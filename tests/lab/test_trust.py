import os
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import composed
from omegaconf import OmegaConf

from lab import provenance, record, schema, trust
from lab.errors import ConfigError

SOURCE = Path("config.yaml")


def test_a_config_of_an_older_run_without_the_key_trial_is_accepted():
    config = dict.fromkeys(field.name for field in fields(schema.Config) if field.name != "trial")
    trust.check_foreign(config, SOURCE)
    del config["seed"]
    with pytest.raises(ConfigError, match="seed is missing"):
        trust.check_foreign(config, SOURCE)


def test_old_names_of_moved_classes_are_replaced_in_targets():
    old = {"dataset": {"source": {"_target_": "datasets.Digits"}}, "name": "datasets.Digits"}
    new = {"dataset": {"source": {"_target_": "sources.Digits"}}, "name": "datasets.Digits"}
    assert trust.with_current_names(old) == new
    assert trust.with_current_names(new) == new


NETS = """
import torch
from torch import nn
from helpers import Imported
from os import PathLike

class Net(nn.Linear):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels * image_size**2, num_classes)

    def forward(self, images):
        return super().forward(images.flatten(1))

class SignSGD(torch.optim.SGD):
    pass

def make(**_):
    return Net(1, 8, 10)
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with modules of its own beside script.py."""
    folder = tmp_path / "project"
    shutil.copytree(provenance.PROJECT / "config", folder / "config")
    (folder / "nets.py").write_text(NETS)
    (folder / "helpers.py").write_text("class Imported: ...")
    (folder / "lab").mkdir()
    (folder / "lab/own.py").write_text("class Own: ...")
    (folder / "package").mkdir()
    (folder / "package/__init__.py").write_text("from .inner import Renamed as Inner")
    (folder / "package/inner.py").write_text("class Renamed: ...")
    (folder / "broken.py").write_text("class Broken: ...\ndef (")
    monkeypatch.setattr(provenance, "PROJECT", folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("nets", None)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("models.MLP", True),
        ("nets.Net", True),
        ("nets.Imported", True),
        ("package.Inner", True),
        ("package.inner.Renamed", True),
        ("torch.optim.SGD", False),  # no model
        ("torchvision.datasets.MNIST", False),
        (["models.MLP"], False),
        (5, False),
        ("nets.make", False),  # a function
        ("nets.PathLike", False),  # imported, but not from a module beside script.py
        ("nets.torch.save", False),
        ("nets.Missing", False),
        ("package.Renamed", False),
        ("broken.Broken", False),
        ("lab.own.Own", False),
        ("models.nn.Linear", False),
        ("os.system", False),
        ("torchvision.models.resnet18", False),
        ("..nets.Net", False),
        ("", False),
    ],
)
def test_a_run_folder_may_name_the_classes_of_the_experiment(project, target, allowed):
    assert trust.is_allowed(target) is allowed


@pytest.mark.parametrize(
    ("key", "target", "allowed"),
    [
        ("optimizer", "torch.optim.SGD", True),
        ("scheduler", "torch.optim.lr_scheduler.StepLR", True),
        ("dataset.source", "sources.Digits", True),
        ("dataset.source", "torchvision.datasets.CIFAR10", True),
        ("dataset.source", "torchvision.datasets.LSUNClass", False),  # unpickles a file
        ("dataset.source", "torchvision.datasets.ImageFolder", False),  # opens any path
        ("dataset.source", "models.MLP", False),
        ("optimizer", "torch.optim.lr_scheduler.StepLR", False),
        ("model.in_channels", "models.MLP", False),  # an argument is no class
        ("model.in_channels", "nets.Net", False),
        ("model.layers[]", "torchvision.datasets.MNIST", False),
        ("", "models.MLP", False),
        ("augmentation", "models.MLP", False),
        # config/scheduler/warmup_cosine.yaml has schedulers as arguments:
        ("scheduler.schedulers[]", "torch.optim.lr_scheduler.LinearLR", True),
        ("scheduler.schedulers[]", "torch.optim.lr_scheduler.StepLR", False),
        ("model.schedulers[]", "torch.optim.lr_scheduler.LinearLR", False),
    ],
)
def test_a_class_is_allowed_only_where_it_belongs(project, key, target, allowed):
    assert trust.is_allowed(target, key) is allowed


def test_a_run_folder_may_name_what_the_projects_own_config_names(project):
    (project / "config/model/resnet.yaml").write_text("_target_: torchvision.models.resnet18\n")
    (project / "config/hydra/launcher/own.yaml").write_text("_target_: os.system\n")
    nested = "# @package _global_\nmodel:\n  _target_: nets.Net\n  inner: [{_target_: a.Block}]\n"
    (project / "config/experiment/nested.yaml").write_text(nested)
    (project / "config/experiment/broken.yaml").write_text("model: [")
    assert trust.is_allowed("torchvision.models.resnet18", "model")
    assert not trust.is_allowed("torchvision.models.resnet18", "optimizer")
    assert trust.is_allowed("a.Block", "model.inner[]")
    assert not trust.is_allowed("a.Block", "model.outer[]")
    assert not trust.is_allowed("os.system", "model")
    assert not trust.is_allowed("lab.callbacks.CleanGit", "model")  # named, not for experiments


OWN = ("model._target_=nets.Net", "model=linear", "optimizer._target_=nets.SignSGD")
OWN += ("optimizer=sgd", "dataset=digits", "debug=smoke")


def test_what_trains_can_be_resumed_evaluated_and_swept(script, evaluate, project, capfd):
    """Own classes, a path with dots, resolvers, and references with a digit in their key."""
    words = ("data_dir=../data", "seed=${oc.env:OWN_SEED}")
    os.environ["OWN_SEED"] = "3"
    try:
        assert script(*OWN, *words, "hydra.run.dir=run") == 0, capfd.readouterr()
    finally:
        del os.environ["OWN_SEED"]
    assert "seed: 3\n" in Path("run/config.yaml").read_text()
    assert script("resume=run", "epochs=2") == 0, capfd.readouterr()
    assert evaluate("run=run") == 0, capfd.readouterr()
    for _ in range(2):
        assert script("-m", "name=own", *OWN, "seed=0,1") == 0
    assert "2 jobs: 2 finished" in capfd.readouterr().out


@pytest.mark.slow
def test_a_foreign_function_needs_trust_which_the_refusal_names(script, evaluate, project, capfd):
    function = ("model._target_=nets.make", "model=linear", "dataset=digits", "debug=smoke")
    assert script(*function, "hydra.run.dir=run") == 0
    for command in (lambda *w: script("resume=run", *w), lambda *w: evaluate("run=run", *w)):
        assert command() == 1
        assert "_target_=nets.make" in (error := capfd.readouterr().err) and "trust=true" in error
        assert command("trust=true") == 0, capfd.readouterr()
    for _ in range(2):  # a job is composed from the command: nothing in its folder is trusted
        assert script("-m", "name=own", *function, "seed=0") == 0
    assert "1 job: 1 finished" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("${seed}", "${seed}"),
        ("a_${seed}_b", "a_${seed}_b"),
        ("${dataset.in_channels}", "${dataset.in_channels}"),
        ("${dataset[in_channels]}", "${dataset[in_channels]}"),
        ("${.width1}", "${.width1}"),
        ("${oc.env:OWN_NAME}", "there"),
        ("x${oc.env:OWN_NAME}", "xthere"),
        ("${oc.env:${model.key}}", "there"),
        (r"\${oc.env:OWN_NAME}", r"\${oc.env:OWN_NAME}"),
        ("${oc.env:OWN_REFERENCE}", r"\${oc.env:HOME}"),
    ],
)
def test_a_config_is_recorded_without_resolvers_but_with_its_references(
    monkeypatch, value, written
):
    monkeypatch.setenv("OWN_NAME", "there")
    monkeypatch.setenv("OWN_REFERENCE", "${oc.env:HOME}")
    cfg = composed()
    OmegaConf.set_struct(cfg, False)
    cfg.model.update({"width1": 8, "key": "OWN_NAME", "value": value, "list": [1, value]})
    if value == "${.width1}":
        cfg.model.list = ["${..width1}"]
    recorded = record.portable(cfg)
    assert recorded["model"]["value"] == written
    assert recorded["model"]["list"][-1].replace("${..", "${.") == written
    if written.startswith("\\"):  # Hydra would call the resolver when it builds a class
        with pytest.raises(ConfigError, match="which calls a resolver"):
            trust.check_foreign(recorded, SOURCE)
        trust.check_foreign(recorded, SOURCE, trusted=True)
    else:
        trust.check_foreign(recorded, SOURCE)
    again = OmegaConf.merge(OmegaConf.create(recorded))
    assert again.model.value == cfg.model.value


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "a${x}${oc.env:HOME}",
        "${a.${oc.env:HOME}}",
        "../x",
        "${a}/../b",
        "${oc.${x}:HOME}",
        r"\\${oc.env:HOME}",
        r"${oc.env:a\}b}",
    ],
)
def test_a_resolver_and_a_path_upwards_are_refused(value):
    config = dict.fromkeys(field.name for field in fields(schema.Config)) | {"name": value}
    with pytest.raises(ConfigError, match="which a run folder must not"):
        trust.check_foreign(config, SOURCE)
    trust.check_foreign(config, SOURCE, trusted=True)
