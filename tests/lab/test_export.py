"""Exports: what was written is what a run predicts, and nothing else is ever written."""

import pytest
import torch
from conftest import composed

from evaluate import load
from lab.build import build
from lab.errors import Refusal
from lab.export import export
from lab.outputs import check_export

ONNX = ("onnx", "onnxscript", "onnxruntime")
MODELS = [
    "mlp",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("linear", "cnn", "vit", "resnet18")),
]


def model_and_config(name: str):
    torch.manual_seed(0)
    cfg = composed(f"model={name}", "dataset=digits", "augmentation=flip")
    return build(cfg, "model"), cfg


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_exported_for_batches_of_any_size(tmp_path, name):
    model, cfg = model_and_config(name)
    told = export(model, cfg, tmp_path / "model.pt2")
    assert "uint8 images (B, 1, 8, 8) to logits (B, 10). Loaded again" in told
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    for count in (1, 5):
        assert loaded(images[:count]).shape == (count, 10)
    assert torch.allclose(loaded(images), loaded(images.flip(3)), atol=1e-4)  # both are averaged


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_exported_to_onnx(tmp_path, name):
    runtime = [pytest.importorskip(package) for package in ONNX][-1]
    export(*model_and_config(name), tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8).numpy()
    assert session.run(None, {"images": images})[0].shape == (1, 10)


def test_an_export_with_other_logits_is_not_written(tmp_path, monkeypatch):
    def damaged(file):
        program = restore(file)
        for value in program.state_dict.values():
            value.data.add_(1)
        return program

    restore = torch.export.load
    monkeypatch.setattr(torch.export, "load", damaged)
    with pytest.raises(Refusal, match=r"was not written: loaded again, its logits differ by"):
        export(*model_and_config("mlp"), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_exported_is_refused_in_a_sentence(tmp_path):
    class Branching(torch.nn.Linear):
        def forward(self, images):
            logits = super().forward(images.flatten(1))
            return logits if logits.sum() > 0 else -logits

    _, cfg = model_and_config("linear")
    with pytest.raises(Refusal, match=r"model.pt2 is not possible for models.Linear: "):
        export(Branching(64, 10), cfg, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_the_name_says_the_format_and_packages_are_named(tmp_path, monkeypatch):
    with pytest.raises(Refusal, match=r"model.pt names no format: the name must end in .pt2"):
        check_export(tmp_path / "model.pt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"not installed: pip install -r env/requirements-onnx.txt"):
        check_export(tmp_path / "model.onnx")
    check_export(tmp_path / "model.pt2")


def test_the_export_of_a_run_predicts_what_the_run_predicts(script, evaluate, tmp_path, capfd):
    words = ("dataset=digits", "debug=smoke", "model=linear", "precision=fp32")
    assert script(*words, "hydra.run.dir=run") == 0
    before = sorted((tmp_path / "run").iterdir())
    assert evaluate("run=run", "export=new/folder/model.pt2") == 0
    assert "model.pt2: uint8 images" in capfd.readouterr().out
    assert sorted((tmp_path / "run").iterdir()) == before
    images = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8)
    found = torch.export.load(tmp_path / "new/folder/model.pt2").module()(images).softmax(1)
    assert torch.allclose(found, load("run", "cpu").probabilities(images), atol=1e-4)
    assert evaluate("run=run", "export=model.txt") == 1
    assert "names no format" in capfd.readouterr().err
