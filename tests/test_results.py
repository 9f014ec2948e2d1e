"""Tables of runs, from folders that only look like runs: what is read is all that matters."""

import csv
import json
import os
from pathlib import Path

import pytest
import yaml

import record
import results

CONFIG = {
    "dataset": {"image_size": 28, "mean": [0.1307]},
    "model": {"_target_": "models.MLP", "image_size": "${dataset.image_size}", "dropout": 0.1},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.002, "betas": [0.9, 0.999]},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "pct_start": 0.22},
    "epochs": 10,
    "limit": None,
    "name": "mine",
}


def fabricate(folder: Path, *overrides: str, seed: int = 0, accuracy=0.9, **config: dict) -> Path:
    """A finished run folder; `config` replaces groups of the config."""
    folder.mkdir(parents=True)
    chosen = {"model": "mlp", "dataset": "mnist", "optimizer": "adam", "seed": seed}
    figures = {"val_accuracy": accuracy, "test_accuracy": accuracy, "seconds": 1.0}
    figures["epochs"] = 10
    asked = {"status": "finished", "overrides": [*overrides, f"seed={seed}"]}
    (folder / "result.json").write_text(json.dumps(chosen | figures | asked))
    content = yaml.dump(CONFIG | {"seed": seed} | config, Dumper=yaml.CSafeDumper)
    (folder / "config.yaml").write_text(content)
    return folder


def table(root: Path, capfd) -> list[list[str]]:
    """The cells of the table of all runs below `root`, its head first."""
    results.summarise([root])
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [cells[0], *cells[2:]]


def test_a_default_that_changed_is_no_seed(tmp_path, capfd):
    for seed in (0, 1):
        fabricate(tmp_path / f"before{seed}", seed=seed)
        optimizer = CONFIG["optimizer"] | {"lr": 0.1}
        fabricate(tmp_path / f"after{seed}", seed=seed, accuracy=0.1 * seed, optimizer=optimizer)
    head, *rows = table(tmp_path, capfd)
    assert head[:2] == ["lr", "runs"]
    assert [row[:3] for row in rows] == [
        ["0.002", "2", "90.00 ± 0.00"], ["0.1", "2", "5.00 ± 7.07"],
    ]  # fmt: skip


def test_what_follows_from_a_choice_is_no_column(tmp_path, capfd):
    adamw = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.01}
    fabricate(tmp_path / "a")
    folder = fabricate(tmp_path / "b", "optimizer=adamw", optimizer=adamw, epochs=30)
    record.write_json(folder / "result.json", record.read_result(folder) | {"optimizer": "adamw"})
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 3}
    fabricate(tmp_path / "c", scheduler=cosine)
    head, *rows = table(tmp_path, capfd)
    assert head[:3] == ["optimizer", "scheduler", "runs"]
    assert len(rows) == 3


def test_the_same_config_is_one_row_however_it_was_asked_for(tmp_path, capfd):
    fabricate(tmp_path / "a", "sweep=practical", seed=0)
    fabricate(tmp_path / "b", "optimizer.lr=2e-3", "augmentation=none", "limit=null", seed=1)
    head, row = table(tmp_path, capfd)
    assert head[0] == "runs" and row[0] == "2"


def test_columns_that_end_alike_keep_their_whole_names(tmp_path, capfd):
    for value in (0.1, 0.2):
        model, scheduler = (CONFIG[key] | {"dropout": value} for key in ("model", "scheduler"))
        asked = (f"model.dropout={value}", f"scheduler.dropout={value}", f"epochs={value * 10:.0f}")
        fabricate(tmp_path / str(value), *asked, model=model, scheduler=scheduler, epochs=value)
    assert table(tmp_path, capfd)[0][:3] == ["model.dropout", "scheduler.dropout", "epochs"]


def test_a_run_counts_once_however_often_it_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fabricate(Path("base/a"))
    results.summarise([Path("base"), Path("base"), Path("./base/../base/a"), tmp_path / "base"])
    assert "| 1    |" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_runs_is_refused_by_name(tmp_path, name):
    fabricate(tmp_path / "base/a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(results.Refusal, match=f"{name} holds no run"):
        results.summarise([tmp_path / "base", tmp_path / name])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe\0", b'{"status": "finished", "val_accuracy": "high"}']
)
def test_a_damaged_result_is_listed_and_costs_no_other(tmp_path, capfd, content):
    fabricate(tmp_path / "whole")
    (fabricate(tmp_path / "broken") / "result.json").write_bytes(content)
    (fabricate(tmp_path / "odd") / "config.yaml").write_bytes(b"\xff a: [")
    results.summarise([tmp_path])
    output = capfd.readouterr().out
    assert f"- damaged: {tmp_path}/broken" in output
    assert "| 2    |" in output


def test_a_thousand_runs_that_all_differ(tmp_path, capfd):
    for number in range(1000):
        model = CONFIG["model"] | {"dropout": number / 1000}
        asked = f"model.dropout={number / 1000}"
        fabricate(tmp_path / str(number), asked, accuracy=number / 1000, model=model)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure)
        )
        assert len(table(tmp_path, capfd)) == 1001
    (axes,) = drawn[0].axes
    assert axes.get_xlabel().startswith("the 60 best of 1000 on validation")
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [str(number / 1000) for number in range(999, 939, -1)]
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1000


def test_help(call, capfd):
    assert call("results.py", "--help") == 0
    assert "python results.py runs/NAME" in capfd.readouterr().out
    assert call("results.py") != 0


def test_a_file_that_cannot_be_written_is_named_below_the_table(call, tmp_path, capfd, monkeypatch):
    fabricate(tmp_path / "base/a")
    (tmp_path / "base/results.csv").write_text("of before")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert call("results.py", "base") == 1
    output, error = capfd.readouterr()
    assert "| 1    |" in output
    assert "base/results.csv could not be written (Permission denied)" in error
    assert "Traceback" not in error
    assert (tmp_path / "base/results.csv").read_text() == "of before"


def test_a_run_that_cannot_be_locked_is_taken_for_running(tmp_path, monkeypatch):
    folder = fabricate(tmp_path / "a")
    record.write_json(folder / "result.json", {"status": "running", "overrides": []})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(record.filelock.FileLock, "acquire", refuse)
    assert record.status(folder) == "running"
