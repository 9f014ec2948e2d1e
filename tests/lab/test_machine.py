import pytest
import torch
from conftest import start
from test_training import CPU, composed, new_state, patterns

import data
import training
from lab import machine
from lab.errors import ConfigError


@pytest.mark.parametrize("requested", ["auto", "fp32", "bf16"])
def test_precision_is_always_resolved(requested):
    assert machine.choose_precision(requested, "cpu") in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, "fp32"),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Genuine Intel(R) CPU"}, "fp32"),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": False, "cpu_name": "AMD EPYC"}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_precision_is_bf16_where_the_processor_is_faster_with_it(
    capabilities, expected, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert machine.choose_precision("auto", "cpu") == expected


@pytest.mark.parametrize(
    ("requested", "total_steps", "compiled"),
    [("auto", 100, False), ("auto", 10**6, True), (True, 1, True), (False, 10**6, False)],
)
def test_compile_auto_depends_on_the_number_of_steps(requested, total_steps, compiled, monkeypatch):
    monkeypatch.setattr(machine, "why_not_compiled", lambda device: None)
    model = torch.nn.Linear(1, 1)
    CPU.compile(model, requested, total_steps)
    assert (model._compiled_call_impl is not None) is compiled


def messages(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "lab.machine"]


@pytest.mark.slow
def test_without_a_compiler_auto_warns_in_one_line_and_true_is_refused(monkeypatch, caplog):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nowhere/c++"))
    model = torch.nn.Linear(1, 1)
    CPU.compile(model, "auto", 10**6)
    assert model(torch.ones(1, 1)).shape == (1, 1)
    (warning,) = messages(caplog)
    start = "compile=auto: the model is not compiled, since torch.compile fails on this machine ("
    assert warning.startswith(start) and "/nowhere/c++" in warning and "\n" not in warning
    assert "install a C++ compiler, for example g++, or name one in" in warning
    with pytest.raises(ConfigError, match=r"compile=true is not possible: .*; or set compile=fal"):
        CPU.compile(model, True, 1)


@pytest.mark.parametrize("requested", ["auto", True])
def test_a_model_that_cannot_be_compiled_shows_it_in_the_first_step(requested, monkeypatch, caplog):
    def broken(model, **_):
        def call(*_):
            raise RuntimeError("backend raised:\nand a long explanation")

        model._compiled_call_impl = call

    monkeypatch.setattr(machine, "why_not_compiled", lambda device: None)
    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    model, images = torch.nn.Linear(3, 2), torch.ones(1, 3)
    CPU.compile(model, requested, 10**6)
    if requested == "auto":
        for _ in range(2):
            assert torch.equal(model(images), model.forward(images))
        (warning,) = messages(caplog)
        assert warning.endswith("since torch.compile fails on this model (backend raised:).")
    else:
        with pytest.raises(ConfigError, match=r"true is not possible: torch.compile fails on"):
            model(images)
    CPU.compile(model, requested, 10**6)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # the model's own error
        model(torch.ones(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["/nowhere/c++", "broken"])
def test_a_long_run_survives_a_compiler_that_is_missing_or_broken(tmp_path, monkeypatch, compiler):
    if compiler == "broken":  # it has a version, but compiles nothing
        path = tmp_path / "c++"
        path.write_text('#!/bin/sh\ncase "$1" in *version) exec g++ "$@";; esac\nexit 1\n')
        path.chmod(0o755)
        compiler = str(path)
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    small = ("dataset=digits", "limit=500", "batch_size=1", "model=linear", "epochs=20")
    process = start(tmp_path, *small, "precision=fp32", "checkpoint.every=20")
    output, _ = process.communicate()
    assert process.returncode == 0 and "Traceback" not in output
    assert output.count("compile=auto: the model is not compiled") == 1
    process = start(tmp_path, "dataset=digits", "debug=smoke", "compile=true")
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in output
    assert "compile=true is not possible: torch.compile fails on this machine" in output


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_choice_of_kernels_does_not_change_the_predictions_of_a_vit(precision):
    model, images = new_state(composed("model=vit")).model, patterns(20)
    chosen, augmentation = machine.Machine("cpu", precision), data.Augmentation()
    before = training.predict(model, images, chosen, augmentation)
    machine.choose_kernels("cpu", precision)
    after = training.predict(model, images, chosen, augmentation)
    assert torch.allclose(after, before, atol=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_an_unavailable_device_is_refused():
    with pytest.raises(ConfigError, match="device=cuda is not on this machine: use auto or"):
        machine.choose_device("cuda")


def test_deterministic_mode_refuses_nondeterministic_operations():
    machine.set_deterministic(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    finally:
        machine.set_deterministic(False)
