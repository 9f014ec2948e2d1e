"""What a command writes before the run itself starts: nothing goes through links."""

import os
from pathlib import Path

import pytest
from conftest import run_folders

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
def test_a_log_that_is_a_pipe_is_refused(script, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run/script.log")
    assert script(*SMOKE, "hydra.run.dir=run") == 1
    assert "script.log is no regular file, and cannot be written to" in capfd.readouterr().err


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
@pytest.mark.parametrize("where", ["", ".hydra"])
def test_a_job_of_a_sweep_with_a_link_fails_alone(script, tmp_path, outside, capfd, where):
    sweep = ("-m", "name=mine", *SMOKE, "seed=0,1")
    assert script(*sweep) == 0
    job = next((tmp_path / "runs/mine").glob("seed=0-*"))
    job.rename(tmp_path / "moved")
    if where:
        job.mkdir()
    (job / where).symlink_to(outside)
    for name in ("multirun.yaml", "results.csv", "results.md", "results.png"):
        (tmp_path / "runs/mine" / name).unlink()
        (tmp_path / "runs/mine" / name).symlink_to(outside / "canary")
    other = run_folders(tmp_path)[-1]
    (other / "result.json").unlink()
    (other / "config.yaml").unlink()
    capfd.readouterr()
    assert script(*sweep) == 1
    output = capfd.readouterr().out
    assert f"{job / where} is a link, which could lead out of the folder: remove it." in output
    assert f"finished: runs/mine/{other.name}" in output


@slow
def test_the_output_of_jobs_is_not_written_through_a_link(script, tmp_path, outside, capfd):
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/.printed").symlink_to(outside)
    assert script("-m", "name=mine", *SMOKE, "seed=0,1", "hydra/launcher=local") == 1
    assert ".printed is a link, which could lead out of the folder" in capfd.readouterr().err
