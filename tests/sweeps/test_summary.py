"""Tables of runs, from fabricated run folders that contain only the files that are read."""

import csv
import os
from pathlib import Path

import pytest
from fabricated import CONFIG, fabricate

from lab import files, record
from lab.errors import Refusal
from sweeps import summary


def table(root: Path, capfd) -> list[list[str]]:
    """Summarise the runs below `root`; return the cells of the table, header first."""
    summary.summarise([root])
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [cells[0], *cells[2:]]


def test_runs_with_different_defaults_are_not_averaged(tmp_path, capfd):
    for seed in (0, 1):
        fabricate(tmp_path / f"before{seed}", seed=seed)
        optimizer = CONFIG["optimizer"] | {"lr": 0.1}
        fabricate(tmp_path / f"after{seed}", seed=seed, accuracy=0.1 * seed, optimizer=optimizer)
    head, *rows = table(tmp_path, capfd)
    assert head[:2] == ["lr", "runs"]
    assert [row[:3] for row in rows] == [
        ["0.002", "2", "90.00 ± 0.00"], ["0.1", "2", "5.00 ± 7.07"],
    ]  # fmt: skip


def test_folds_are_averaged_like_seeds(tmp_path, capfd):
    for fold, accuracy in enumerate((0.8, 0.9)):
        for lr in (0.1, 0.2):
            optimizer = CONFIG["optimizer"] | {"lr": lr}
            more = {"fold": fold, "folds": 2, "optimizer": optimizer}
            name = tmp_path / f"{lr}-{fold}"
            fabricate(name, f"fold={fold}", "folds=2", accuracy=accuracy, **more)
    _, *rows = table(tmp_path, capfd)
    assert [row[:3] for row in rows] == [
        ["0.1", "2", "85.00 ± 7.07"], ["0.2", "2", "85.00 ± 7.07"],
    ]  # fmt: skip


def test_values_implied_by_an_option_get_no_column(tmp_path, capfd):
    adamw = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.01}
    fabricate(tmp_path / "a")
    folder = fabricate(tmp_path / "b", "optimizer=adamw", optimizer=adamw, epochs=30)
    files.write_json(folder / "result.json", record.read_result(folder) | {"optimizer": "adamw"})
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 3}
    fabricate(tmp_path / "c", scheduler=cosine)
    head, *rows = table(tmp_path, capfd)
    assert head[:3] == ["optimizer", "scheduler", "runs"]
    assert len(rows) == 3


def test_an_option_implied_by_the_model_gets_no_column(tmp_path, capfd):
    """The cnn brings its own optimizer: the user chose only the model."""
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.3}
    cnn = {"_target_": "models.FCNN", "widths": [8]}
    fabricate(tmp_path / "a")
    folder = fabricate(tmp_path / "b", "model=cnn", model=cnn, optimizer=sgd, epochs=46)
    chosen = {"model": "cnn", "optimizer": "sgd"}
    files.write_json(folder / "result.json", record.read_result(folder) | chosen)
    head, *rows = table(tmp_path, capfd)
    assert head[:2] == ["model", "runs"] and [row[0] for row in rows] == ["cnn", "mlp"]


def test_configs_that_differ_in_many_defaults_get_one_column(tmp_path, capfd):
    """The user set none of these keys, so the fewest that distinguish the runs are shown."""
    for number, lr in enumerate((0.1, 0.2, 0.3)):
        model = CONFIG["model"] | {"dropout": min(lr, 0.2)}
        optimizer = CONFIG["optimizer"] | {"lr": lr}
        recipe = {"optimizer": optimizer, "model": model, "limit": min(lr, 0.2)}
        fabricate(tmp_path / str(number), **recipe)
    head, *rows = table(tmp_path, capfd)
    assert head[:2] == ["lr", "runs"] and len(rows) == 3


def test_numbers_sort_numerically_and_have_four_significant_digits(tmp_path, capfd):
    for number, size in enumerate((256, 64, 128, 32)):
        fabricate(tmp_path / str(number), f"batch_size={size}", batch_size=size)
    assert [row[0] for row in table(tmp_path, capfd)[1:]] == ["32", "64", "128", "256"]
    for number, lr in enumerate((0.00031622776, 1 / 3)):
        optimizer = CONFIG["optimizer"] | {"lr": lr}
        fabricate(tmp_path / f"lr/{number}", f"optimizer.lr={lr}", optimizer=optimizer)
    assert [row[0] for row in table(tmp_path / "lr", capfd)[1:]] == ["0.0003162", "0.3333"]


def test_the_last_line_lists_the_written_files(tmp_path, capfd):
    fabricate(tmp_path / "a")
    summary.summarise([tmp_path])
    last = capfd.readouterr().out.splitlines()[-1]
    written = "results.csv, results.md, results.html, results.png"
    assert last == f"Written to {tmp_path}: {written}"
    assert all((tmp_path / name.strip()).exists() for name in last.partition(": ")[2].split(","))


def test_equal_configs_share_a_row_regardless_of_their_overrides(tmp_path, capfd):
    fabricate(tmp_path / "a", "sweep=practical", seed=0)
    fabricate(tmp_path / "b", "optimizer.lr=2e-3", "augmentation=none", "limit=null", seed=1)
    head, row = table(tmp_path, capfd)
    assert head[0] == "runs" and row[0] == "2"


def test_columns_with_the_same_last_part_keep_their_full_names(tmp_path, capfd):
    for value in (0.1, 0.2):
        model, scheduler = (CONFIG[key] | {"dropout": value} for key in ("model", "scheduler"))
        overrides = (
            f"model.dropout={value}",
            f"scheduler.dropout={value}",
            f"epochs={value * 10:.0f}",
        )
        fabricate(tmp_path / str(value), *overrides, model=model, scheduler=scheduler, epochs=value)
    assert table(tmp_path, capfd)[0][:3] == ["model.dropout", "scheduler.dropout", "epochs"]


def test_a_run_that_is_given_several_times_counts_once(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fabricate(Path("base/a"))
    summary.summarise([Path("base"), Path("base"), Path("./base/../base/a"), tmp_path / "base"])
    assert "| 1    |" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "is not a folder"), ("empty", "holds no run")]
)
def test_the_error_for_a_folder_without_runs_names_it(tmp_path, name, why):
    fabricate(tmp_path / "base/a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refusal, match=f"{name} {why}"):
        summary.summarise([tmp_path / "base", tmp_path / name])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe\0", b'{"status": "finished", "val_accuracy": "high"}']
)
def test_a_damaged_result_is_listed_and_does_not_affect_other_runs(tmp_path, capfd, content):
    fabricate(tmp_path / "whole")
    (fabricate(tmp_path / "broken") / "result.json").write_bytes(content)
    (fabricate(tmp_path / "odd") / "config.yaml").write_bytes(b"\xff a: [")
    summary.summarise([tmp_path])
    output = capfd.readouterr().out
    assert f"- damaged: {tmp_path}/broken" in output
    assert f"- damaged: {tmp_path}/odd: {tmp_path}/odd/config.yaml is damaged" in output
    assert "| 1    |" in output


def test_a_thousand_different_runs_are_summarised(tmp_path, capfd):
    for number in range(1000):
        model = CONFIG["model"] | {"dropout": number / 1000}
        override = f"model.dropout={number / 1000}"
        fabricate(tmp_path / str(number), override, accuracy=number / 1000, model=model)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure)
        )
        assert len(table(tmp_path, capfd)) == 1001
    (axes,) = drawn[0].axes
    assert axes.get_title() == "the 60 best of 1000 on validation"
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [str(number / 1000) for number in range(999, 939, -1)]
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1000
    assert (tmp_path / "results.html").stat().st_size < 3e6


def test_a_write_error_is_reported_below_the_table(call, tmp_path, capfd, monkeypatch):
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


def test_nothing_but_the_results_is_left(tmp_path, capfd):
    """A command that looks writes no caches: run folders stay as they are."""
    fabricate(tmp_path / "a")
    fabricate(tmp_path / "b", seed=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/*")}
    summary.summarise([tmp_path])
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/*")}
    assert after == before
    new = {path.name for path in tmp_path.iterdir()} - {"a", "b"}
    assert new == {"results.csv", "results.md", "results.html", "results.png"}
