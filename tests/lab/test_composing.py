"""The configs of a sweep's jobs are those that Hydra composes one by one."""

import pytest
from conftest import PROJECT
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

import lab.hydra_patches
import lab.schema  # noqa: F401
from lab import composing
from lab.composing import composed_once


@pytest.fixture
def loader():
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def compose(loader: ConfigLoaderImpl, *jobs: list[str]) -> list:
    master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
    found = []
    for job in jobs:
        try:
            found.append(loader.load_sweep_config(master, job))
        except HydraException as error:
            found.append(str(error))
    return found


def content(found: list) -> list:
    return [OmegaConf.to_yaml(cfg) if OmegaConf.is_config(cfg) else cfg for cfg in found]


JOBS = [
    ["model=linear", "seed=1"],
    ["model=linear", "seed=2", "++extra.key=1", "optimizer.lr=${oc.env:LR,0.5}"],
    ["model=linear", "seed=1"],
    ["model=cnn", "dataset=digits", "seed=1"],  # with an optimizer and a tuned file of its own
    ["seed=1", "dataset=digits", "model=cnn", "optimizer=sgd", "~tuned"],
    ["model=nonsense"],
    ["model=linear", "nonsense=1"],
    ["model=linear", "epochs=many"],
    ["model={_target_:models.Mine}", "seed=1"],
    ["+logger@other=tensorboard", "hydra.job.name=mine"],
    ["optimizer=mine"],  # found in another folder
]


def test_they_are_the_same_configs_and_the_same_refusals(loader, tmp_path):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer/mine.yaml").write_text("lr: 0.125\n")
    jobs = [*JOBS[:-1], [*JOBS[-1], f"hydra.searchpath=[{tmp_path}]"], JOBS[-1], JOBS[0]]
    before = vars(ConfigLoaderImpl).copy()
    expected = content(compose(loader, *jobs))
    with composed_once():
        assert content(compose(loader, *jobs)) == expected
    assert vars(ConfigLoaderImpl) == before
    assert "lr: 0.125" in expected[-3] and "mine" in expected[-2].splitlines()[0]


def test_files_are_read_once_for_each_choice_of_options(loader, monkeypatch):
    read = []
    original = ConfigRepository.load_config
    monkeypatch.setattr(
        ConfigRepository,
        "load_config",
        lambda self, config_path: read.append(config_path) or original(self, config_path),
    )
    with composed_once():
        first, second = compose(loader, ["model=linear", "seed=1"], ["model=linear", "seed=2"])
    assert read.count("model/linear") == read.count("optimizer/adam") - 1 == 1  # of the sweep, too
    first.model.in_channels = 7  # a config is the job's own
    assert (first.seed, second.seed) == (1, 2)
    assert second.model.in_channels == 1


def test_few_choices_are_kept(loader, monkeypatch):
    monkeypatch.setattr(composing, "MOST", 2)
    jobs = [[f"model={name}", "seed=1"] for name in ("linear", "cnn", "mlp", "vit", "linear")]
    with composed_once():
        found = content(compose(loader, *jobs))
    assert found == content(compose(loader, *jobs))
