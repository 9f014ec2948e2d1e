import pytest
import torch
from test_training import CPU, composed, new_state, patterns

import data
import training
from lab import machine
from lab.errors import ConfigError


@pytest.mark.parametrize("requested", ["auto", "fp32", "bf16"])
def test_precision_is_always_resolved(requested):
    assert machine.choose_precision(requested, "cpu") in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("requested", "total_steps", "compiled"),
    [("auto", 100, False), ("auto", 10**6, True), (True, 1, True), (False, 10**6, False)],
)
def test_compile_auto_depends_on_the_number_of_steps(requested, total_steps, compiled):
    model = torch.nn.Linear(1, 1)
    CPU.compile(model, requested, total_steps)
    assert (model._compiled_call_impl is not None) is compiled


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
