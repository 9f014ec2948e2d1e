"""Weights to start from: what is taken, what is left, and what is refused."""

import json
import logging
import shutil
import sys

import pytest
import torch
from conftest import composed

from lab import files, initial
from lab.build import build
from lab.errors import Refusal

DIGITS = ("dataset=digits", "~tuned")
SMALL = (*DIGITS, "debug=smoke")
OTHERS = "dataset.classes=[a,b,c,d,e,f,g,h,i,j]"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "located", lambda name: tmp_path / name)


def model_and_config(*words: str):
    torch.manual_seed(0)
    cfg = composed(*DIGITS, *words)
    return build(cfg, "model"), cfg


def state(*words: str, seed: int = 7) -> dict:
    torch.manual_seed(seed)
    return build(composed(*DIGITS, *words), "model").state_dict()


def started(weights, *words: str, name: str = "w.pt") -> tuple[dict, dict, dict]:
    """The weights of a model before and after it was started from a file, and the record."""
    torch.save(weights, name)
    model, cfg = model_and_config(*words, f"init_from={name}")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    return before, initial.load(model, cfg), model.state_dict()


@pytest.mark.parametrize("kind", ["plain", "model", "state_dict", "parallel", "half"])
def test_the_weights_of_a_file_are_taken_however_they_are_kept(kind):
    weights = state("model=cnn")
    content = {
        "plain": weights,
        "model": {"model": weights, "epoch": 3},
        "state_dict": {"state_dict": weights, "args": {"lr": 0.1}},
        "parallel": {f"module.{name}": value for name, value in weights.items()},
        "half": {n: v.half() if v.is_floating_point() else v for n, v in weights.items()},
    }[kind]
    _, record, after = started(content, "model=cnn")
    assert record["taken"] == list(weights) and not record["left"] + record["unused"]
    for name, value in weights.items():
        assert torch.allclose(after[name], value, atol=1e-3 if kind == "half" else 0)


@pytest.mark.parametrize("model", ["linear", "mlp", "cnn", "vit", "resnet18"])
def test_the_head_is_made_anew_if_the_number_of_classes_differs(model, caplog):
    weights = state(f"model={model}", "dataset.num_classes=7")
    if model == "linear":
        with pytest.raises(Refusal, match=r"head.weight is .7, 64. instead of .10, 64."):
            started(weights, "model=linear")  # nothing else is left to start from
        return
    caplog.set_level(logging.INFO)
    before, record, after = started(weights, f"model={model}")
    head = "fc" if model == "resnet18" else "head"
    assert record["left"] == [f"{head}.weight", f"{head}.bias"]
    assert all(torch.equal(after[name], before[name]) for name in record["left"])
    assert all(torch.equal(after[name], weights[name]) for name in record["taken"])
    assert f"tensors taken; reinitialised: {head}.weight, {head}.bias" in caplog.text


def test_the_first_convolution_is_made_anew_if_the_channels_differ():
    weights = state("model=cnn", "dataset.in_channels=3")
    before, record, after = started(weights, "model=cnn")
    assert record["left"] == ["blocks.0.conv.weight"]
    assert torch.equal(after["blocks.0.conv.weight"], before["blocks.0.conv.weight"])


def test_weights_that_the_model_has_no_place_for_are_recorded():
    extra = {"projection.weight": torch.zeros(3, 3)}
    _, record, _ = started(state("model=mlp") | extra, "model=mlp")
    assert record["unused"] == ["projection.weight"] and not record["left"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            lambda: state("model=mlp", "model.hidden_sizes=[64,256]"),
            "layers.0.weight is .64, 64. i",
        ),
        (lambda: state("model=vit"), "another model: layers.0.weight is missing, .* and 1 more"),
        (lambda: {"epoch": 3, "loss": 0.5}, "w.pt holds no named weights"),
        (lambda: {}, "holds no named weights"),
        (lambda: [1, 2], "is not a checkpoint"),
        (lambda: torch.nn.Linear(1, 1), "cannot be read as a checkpoint: it is damaged"),
    ],
)
def test_other_files_are_refused_and_never_executed(weights, message):
    with pytest.raises(Refusal, match=message):
        started(weights(), "model=mlp")


def test_a_missing_file_is_refused():
    model, cfg = model_and_config("init_from=nothing.pt")
    with pytest.raises(Refusal, match=r"nothing.pt does not exist: init_from must name"):
        initial.load(model, cfg)


def test_safetensors_are_read(monkeypatch):
    save = pytest.importorskip("safetensors.torch", reason="needs env/requirements-timm.txt")
    weights = state("model=mlp")
    save.save_file(weights, "w.safetensors")
    model, cfg = model_and_config("init_from=w.safetensors")
    assert len(initial.load(model, cfg)["taken"]) == 6
    assert all(map(torch.equal, model.state_dict().values(), weights.values()))
    with open("w.safetensors", "wb") as file:
        file.write(b"\xff" * 100)
    with pytest.raises(Refusal, match="is damaged: it cannot be read as safetensors"):
        initial.load(model, cfg)


def test_safetensors_without_the_package_name_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "w.safetensors").touch()
    model, cfg = model_and_config("init_from=w.safetensors")
    with pytest.raises(Refusal, match=r"pip install -r env/requirements-timm.txt$"):
        initial.load(model, cfg)


def test_a_run_starts_from_another_and_resumes_without_it(script, tmp_path, capfd):
    assert script(*SMALL, "hydra.run.dir=first") == 0
    words = (*SMALL, "init_from=first", "epochs=2", "optimizer.lr=1e-9", "hydra.run.dir=second")
    assert script(*words) == 0
    first, second = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("first", "second")
    )
    assert second["init_from"]["file"] == str(tmp_path / "first/best.pt")
    assert len(second["init_from"]["taken"]) == 6 and len(second["init_from"]["sha256"]) == 64
    assert second["test_accuracy"] == first["test_accuracy"]  # it has hardly learned since
    shutil.rmtree(tmp_path / "first")
    assert script("resume=second", "epochs=3") == 0
    (tmp_path / "second/last.pt").unlink()
    (tmp_path / "second/metrics.csv").unlink()  # as if killed before the first checkpoint
    capfd.readouterr()
    assert script("resume=second", "epochs=4") == 1
    assert "first does not exist: init_from must name" in capfd.readouterr().err


def test_the_head_of_a_run_with_other_classes_is_made_anew(script, tmp_path):
    assert script(*SMALL, "hydra.run.dir=first") == 0
    assert script(*SMALL, OTHERS, "init_from=first", "hydra.run.dir=second") == 0
    record = json.loads((tmp_path / "second/result.json").read_text())["init_from"]
    assert record["left"] == ["head.weight", "head.bias"] and len(record["taken"]) == 4
