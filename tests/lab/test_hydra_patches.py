"""What a command writes before the run itself starts goes through no links; configs stay apart."""

import copy
import logging
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, ValidationError

import lab.hydra_patches  # noqa: F401
from lab.log_file import LogFile
from lab.schema import Config

slow = pytest.mark.slow
SMOKE = ("debug=smoke", "model=linear", "dataset=digits")


@pytest.fixture
def outside(tmp_path_factory) -> Path:
    """A folder that no command may touch, with files of the names that commands write."""
    folder = tmp_path_factory.mktemp("outside")
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml", "script.log", "canary"):
        (folder / name).write_text("untouched")
    yield folder
    assert {path.read_text() for path in folder.iterdir()} == {"untouched"}
    assert len(list(folder.iterdir())) == 5


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (".hydra", ""),
        pytest.param("script.log", "canary", marks=slow),
        pytest.param(".lock", "canary", marks=slow),
    ],
)
def test_a_folder_with_a_link_that_would_be_written_through_is_refused(
    script, tmp_path, outside, capfd, name, target
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(outside / target)
    assert script(*SMOKE, "hydra.run.dir=run") == 1
    error = capfd.readouterr().err
    assert f"run/{name} is a link, which could lead out of the folder: remove it." in error
    assert names(tmp_path / "run") == {name}


@slow
def test_hydras_own_logging_and_sweeper_do_not_follow_links(script, tmp_path, outside, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/script.log").symlink_to(outside / "canary")
    assert script(*SMOKE, "hydra.run.dir=run", "hydra/job_logging=default") == 1
    assert "run/script.log is a link" in capfd.readouterr().err
    (tmp_path / "many").mkdir()
    (tmp_path / "many/multirun.yaml").symlink_to(outside / "canary")
    words = ("-m", *SMOKE, "hydra.sweep.dir=many", "hydra/sweeper=basic", "hydra/launcher=basic")
    assert script(*words, "seed=0,1") == 0
    assert not (tmp_path / "many/multirun.yaml").is_symlink()


@pytest.mark.parametrize("name", ["script.log", ".lock"])
def test_a_file_with_a_second_name_is_not_written_to(script, tmp_path, outside, capfd, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).hardlink_to(outside / "canary")
    assert script(*SMOKE, "hydra.run.dir=run") == 1
    assert f"run/{name} has 2 names (hard links)" in capfd.readouterr().err


@slow
def test_a_log_that_is_a_pipe_is_refused(script, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run/script.log")
    assert script(*SMOKE, "hydra.run.dir=run") == 1
    assert "script.log is a named pipe: remove it." in capfd.readouterr().err


def test_links_in_place_of_files_are_not_followed(script, tmp_path, outside, capfd):
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    for name in ("result.json", "changes.diff", "best.pt", "metrics.csv"):
        (run / name).symlink_to(outside / "canary")
        assert script(*SMOKE, "hydra.run.dir=run") == 1
        assert f"{name} is a link" in capfd.readouterr().err
        (run / name).unlink()
    (run / ".hydra/hydra.yaml").unlink()
    (run / ".hydra/hydra.yaml").symlink_to(outside / "canary")
    assert script(*SMOKE, "hydra.run.dir=run") == 0
    assert not (run / ".hydra/hydra.yaml").is_symlink()


@slow
@pytest.mark.parametrize("where", ["", ".hydra", "../multirun.yaml", "../results.png"])
def test_a_sweep_with_a_link_in_place_of_a_job_or_a_file_is_refused(
    script, tmp_path, outside, capfd, where
):
    sweep = ("-m", "name=mine", *SMOKE, "seed=0,1")
    assert script(*sweep) == 0
    job = next((tmp_path / "runs/mine").glob("seed=0-*"))
    job.rename(tmp_path / "moved")
    if where:
        job.mkdir()
    link = Path(os.path.normpath(job / where))
    link.unlink(missing_ok=True)
    link.symlink_to(outside / "canary" if where.startswith("..") else outside)
    capfd.readouterr()
    assert script(*sweep) == 1
    error = capfd.readouterr().err
    assert f"{link} is a link, which could lead out of the folder: remove it." in error


@slow
def test_the_output_of_jobs_is_not_written_through_a_link(script, tmp_path, outside, capfd):
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/.printed").symlink_to(outside)
    assert script("-m", "name=mine", *SMOKE, "seed=0,1", "hydra/launcher=local") == 1
    assert ".printed is a link, which could lead out of the folder" in capfd.readouterr().err


def test_a_log_that_is_a_link_costs_the_message_alone(tmp_path, outside, capfd):
    (tmp_path / "script.log").symlink_to(outside / "canary")
    log = logging.Logger("alone")
    log.addHandler(LogFile(tmp_path / "script.log", delay=True))
    log.warning("said")
    assert capfd.readouterr() == ("", "")


def test_a_copy_of_a_config_is_apart_from_it():
    cfg = OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": [1, "${counted:}"]}})
    calls = iter(range(9))
    OmegaConf.register_new_resolver("counted", lambda: next(calls), use_cache=True, replace=True)
    OmegaConf.set_struct(cfg.b, True)
    assert cfg.b.d[1] == 0
    copied = copy.deepcopy(cfg)
    assert OmegaConf.is_struct(copied.b) and copied.b.d[1] == 0  # the cache is copied, too
    OmegaConf.set_struct(copied.b, False)
    OmegaConf.set_readonly(copied, True)
    OmegaConf.clear_cache(copied)
    assert OmegaConf.is_struct(cfg.b) and not OmegaConf.is_readonly(cfg)
    assert (cfg.b.d[1], copied.b.d[1]) == (0, 1)
    typed = copy.deepcopy(OmegaConf.structured(Config))
    with pytest.raises(ValidationError):
        typed.epochs = "many"


def test_a_reference_that_was_parsed_before_gives_the_value_of_now():
    cfg = OmegaConf.create({"a": 1, "b": "${a}/${a}"})
    assert cfg.b == "1/1"
    cfg.a = 2
    assert cfg.b == "2/2"
    for _ in range(2):
        with pytest.raises(GrammarParseError):
            OmegaConf.create({"c": "${"})
