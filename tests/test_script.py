"""script.py end to end: its output, its run folders and what its models learn."""

import csv
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import PROJECT, options, run_folders, start

MODELS = ["cnn", "linear", "mlp", "vit"]  # those of models.py


def result(folder) -> dict:
    return json.loads((folder / "result.json").read_text())


def metrics(folder) -> list[dict]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


PAIRS = [(model, optimizer) for model in MODELS for optimizer in options("optimizer")]


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [  # by default, each model and each optimizer once or twice
        pytest.param(*pair, marks=[] if number % 4 < 2 else [pytest.mark.slow])
        for number, pair in enumerate(PAIRS)
    ],
)
def test_every_model_trains_with_every_optimizer(script, tmp_path, model, optimizer):
    assert script("debug=smoke", f"model={model}", f"optimizer={optimizer}") == 0
    (folder,) = run_folders(tmp_path)
    assert result(folder)["status"] == "finished"
    assert len(metrics(folder)) == 1


OTHERS = sorted(set(options("model")) - set(MODELS))
TINY = ("debug=smoke", "dataset=digits", "limit=4", "batch_size=2", "hydra.run.dir=run")


@pytest.mark.parametrize("model", OTHERS)
def test_every_other_model_trains(script, tmp_path, model):
    if model == "timm":
        pytest.importorskip("timm", reason="needs env/requirements-timm.txt")
    assert script(f"model={model}", *TINY) == 0
    assert result(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("model", OTHERS)
def test_every_other_model_resumes_and_is_evaluated(script, evaluate, tmp_path, model):
    test_every_other_model_trains(script, tmp_path, model)
    assert script("resume=run", "epochs=2") == 0
    assert evaluate("run=run") == 0
    assert result(tmp_path / "run")["epochs"] == 2


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(option, marks=[] if option in ("crop_flip", "cutmix") else pytest.mark.slow)
        for option in options("augmentation")
    ],
)
def test_every_augmentation_trains(script, tmp_path, option):
    words = ("debug=smoke", "model=linear", "dataset=digits", "limit=64")
    assert script(*words, f"augmentation={option}") == 0
    (folder,) = run_folders(tmp_path)
    assert result(folder)["status"] == "finished"


def test_the_run_folder_records_config_metrics_and_result(script, tmp_path, capfd):
    assert script("epochs=3", "limit=256", "batch_size=32", "seed=7") == 0
    (folder,) = run_folders(tmp_path)
    assert folder.name.endswith("_mlp_mnist_adam")
    names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    files = ["best.pt", "changes.diff", "config.yaml", "last.pt", "metrics.csv"]
    assert names == [*files, "result.json", "script.log"]

    written = result(folder)
    assert written["status"] == "finished"
    assert written["overrides"] == ["epochs=3", "limit=256", "batch_size=32", "seed=7"]
    assert (written["model"], written["dataset"], written["optimizer"]) == ("mlp", "mnist", "adam")
    assert (written["seed"], written["device"], written["epochs"]) == (7, written["device"], 3)
    assert written["parameters"] == sum(
        weights.numel() for weights in torch.load(folder / "best.pt")["model"].values()
    )
    assert torch.__version__.startswith(written["versions"]["torch"])
    assert 0 <= written["test_accuracy"] <= 1
    assert written["precision"] in ("fp32", "bf16")
    assert written["seconds"] > 0 and written["images_per_second"] > 0
    assert {"commit", "dirty", "command"} <= written.keys()

    rows = metrics(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = max(reversed(rows), key=lambda row: float(row["val_accuracy"]))
    assert written["best_epoch"] == int(best["epoch"])
    assert written["val_accuracy"] == float(best["val_accuracy"])

    output = capfd.readouterr()
    assert output.out.count("val accuracy") == 3
    assert "it/s" not in output.err  # the progress bar is shown only on a terminal
    assert "epoch 3/3" in (folder / "script.log").read_text()


def test_a_run_names_the_file_that_sets_values_for_its_dataset(script, data_dir, capfd):
    assert script("dataset=digits", "debug=smoke") == 0
    assert "settings for this dataset: config/tuned/digits_mlp_adam.yaml" in capfd.readouterr().out
    for arguments in (["dataset=digits", "~tuned"], ["dataset=mnist"]):
        assert script(*arguments, "debug=smoke") == 0
        assert "settings for this dataset" not in capfd.readouterr().out


@pytest.mark.slow
def test_terminal_output_fits_80_columns_and_names_the_run_folder(tmp_path, data_dir):
    arguments = ("model=linear", "epochs=100", "limit=64", "batch_size=64", "val_size=64")
    arguments += ("checkpoint.every=100",)
    process = start(tmp_path, *arguments, f"data_dir={data_dir}")
    first, *lines = process.communicate()[0].splitlines()
    (folder,) = run_folders(tmp_path)
    assert first == f"linear on mnist with adam → {folder.relative_to(tmp_path)}"
    assert lines[-1] == f"finished: {folder.relative_to(tmp_path)}"
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 100 and max(map(len, epochs)) <= 80


def test_the_loss_falls_and_the_model_generalises(script, tmp_path):
    assert script("epochs=5", "batch_size=32") == 0
    (folder,) = run_folders(tmp_path)
    losses = [float(row["train_loss"]) for row in metrics(folder)]
    assert losses[-1] < 0.5 * losses[0]
    assert result(folder)["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=[] if model == "mlp" else pytest.mark.slow) for model in MODELS],
)
def test_every_model_overfits_one_batch(script, tmp_path, capfd, model):
    assert script("debug=overfit", "dataset=digits", f"model={model}") == 0
    output = capfd.readouterr().out
    assert "the model can memorise a batch: 64 of 64" in output
    assert "test accuracy" not in output
    (folder,) = run_folders(tmp_path)
    assert result(folder)["val_accuracy"] == 1


def test_the_test_accuracy_is_that_of_the_best_weights(script, tmp_path, monkeypatch):
    import training

    seen = []
    evaluate = training.evaluate

    def spy(model, image_set, *arguments):
        weights = [value.clone() for value in model.state_dict().values()]
        seen.append((len(image_set), weights, evaluate(model, image_set, *arguments)))
        return seen[-1][2]

    monkeypatch.setattr(training, "evaluate", spy)
    assert script("epochs=4", "batch_size=32", "optimizer.lr=0.05", "scheduler=constant") == 0
    (folder,) = run_folders(tmp_path)
    sizes = [size for size, _, _ in seen]
    assert sizes == [32] * 4 + [160]  # validation four times, the test images once, at the end
    best = seen[result(folder)["best_epoch"] - 1]
    assert all(map(torch.equal, best[1], seen[-1][1]))
    assert result(folder)["test_accuracy"] == seen[-1][2]["accuracy"]


def test_the_same_seed_gives_the_same_metrics(script, tmp_path):
    arguments = ("model=cnn", "dataset=fashion", "limit=256", "epochs=2", "augmentation=standard")
    for seed in (1, 1, 2):
        assert script(*arguments, f"seed={seed}", "device=cpu", "batch_size=64") == 0
    first, again, other = map(metrics, run_folders(tmp_path))
    timed = ("seconds", "images_per_second")
    for row, twin in zip(first, again, strict=True):
        assert all(row[key] == twin[key] for key in row if key not in timed)
    assert first[0]["train_loss"] != other[0]["train_loss"]


@pytest.mark.slow
def test_the_multirun_example_of_the_readme(script, tmp_path):
    grid = ("model=linear,mlp,cnn,vit", "dataset=mnist,fashion", "optimizer=adamw")
    assert script("--multirun", *grid, "debug=smoke") == 0
    folders = run_folders(tmp_path)
    assert len(folders) == 8
    assert {(result(f)["model"], result(f)["dataset"]) for f in folders} == set(
        itertools.product(("linear", "mlp", "cnn", "vit"), ("mnist", "fashion"))
    )
    assert all(result(folder)["status"] == "finished" for folder in folders)


def test_a_failed_job_does_not_affect_the_others(script, tmp_path, capfd):
    assert script("--multirun", "debug=smoke", "model.hidden_sizes=[8],[0],[9]") == 1
    results = {folder.name.split("-")[0]: result(folder) for folder in run_folders(tmp_path)}
    assert {name: written["status"] for name, written in results.items()} == {
        "model.hidden_sizes=_8_": "finished",
        "model.hidden_sizes=_0_": "failed",
        "model.hidden_sizes=_9_": "finished",
    }
    assert "hidden_sizes=[0]" in results["model.hidden_sizes=_0_"]["reason"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_non_finite_loss_fails_the_run_with_a_message(script, tmp_path, capfd):
    arguments = ("model=linear", "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant")
    assert script(*arguments) == 1
    (folder,) = run_folders(tmp_path)
    assert "in epoch 1, step" in result(folder)["reason"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_an_unexpected_error_shows_its_traceback(script, tmp_path, capfd, monkeypatch):
    import training

    monkeypatch.setattr(training, "train_epoch", lambda *_: {}["missing"])
    assert script("debug=smoke") == 1
    (folder,) = run_folders(tmp_path)
    assert "Traceback" in capfd.readouterr().out
    assert "Traceback" in (folder / "script.log").read_text()
    assert result(folder)["reason"] == "KeyError: 'missing'"


def test_missing_data_gives_a_message_without_a_traceback(script, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:9/"])
    assert script() == 1
    output = "".join(capfd.readouterr())
    assert "train-images-idx3-ubyte.gz is missing" in output and "dataset=digits" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["epochs=0"], 1, "epochs=0 is not allowed"),  # refused, but still with its own run folder
        pytest.param(["debug=smoke", "model=linear"], 0, "finished: ", marks=pytest.mark.slow),
    ],
)
def test_concurrent_runs_get_separate_folders(tmp_path, data_dir, arguments, code, message):
    def start(_):
        return subprocess.run(
            [sys.executable, PROJECT / "script.py", *arguments],
            cwd=tmp_path, env=os.environ | {"DATA_DIR": str(data_dir)},
            capture_output=True, text=True,
        )  # fmt: skip

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(start, range(3)))
    assert [process.returncode for process in done] == [code] * 3, done[0].stderr
    assert all(message in process.stdout for process in done), done
    assert len(run_folders(tmp_path)) == 3


def test_data_dir_has_a_default_and_can_be_overridden(script, tmp_path, capfd):
    os.environ.pop("DATA_DIR")
    assert script("--cfg", "job") == 0
    assert "data_dir: ${oc.env:DATA_DIR,null}" in capfd.readouterr().out
    assert script("data_dir=elsewhere", "debug=smoke", "dataset=digits") == 0
    (folder,) = run_folders(tmp_path)  # the path is relative to the current folder
    assert f"data_dir: {tmp_path}/elsewhere\n" in (folder / "config.yaml").read_text()


def test_deterministic_runs_are_equal_and_set_the_mode_of_torch(script, tmp_path):
    for deterministic in ("true", "true", "false"):
        arguments = ("debug=smoke", "model=cnn", "device=cpu", f"deterministic={deterministic}")
        assert script(*arguments) == 0
        assert torch.are_deterministic_algorithms_enabled() is (deterministic == "true")
    first, second, _ = run_folders(tmp_path)
    assert metrics(first)[0]["train_loss"] == metrics(second)[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("model", "least"), [("linear", 0.905), ("mlp", 0.95), ("cnn", 0.97), ("vit", 0.94)]
)
def test_a_small_dataset_gets_as_many_steps_as_it_needs(script, tmp_path, model, least, seed):
    assert script("dataset=digits", f"model={model}", f"seed={seed}") == 0
    (folder,) = run_folders(tmp_path)
    assert result(folder)["test_accuracy"] >= least
