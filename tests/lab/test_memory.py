import pytest
import torch
from conftest import composed

from lab import memory
from lab.build import build
from lab.errors import ConfigError


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.hidden_sizes=[1000000000000]"],
        ["model.hidden_sizes=[8,1000000000]"],
        ["model=vit", "model.dim=4000000000"],
        ["model=cnn", "model.widths=[4000000000,2,2]"],
        ["model=cnn", "model.kernel_sizes=[1000001,3,2]"],
        ["dataset=digits", "model=linear", "dataset.image_size=1000000"],
    ],
)
def test_a_model_that_no_machine_holds_is_refused_before_memory_is_asked_for(overrides):
    with pytest.raises(ConfigError, match="the model is too large for this machine"):
        build(composed(*overrides), "model")


def test_a_model_of_endless_layers_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "MOST_TENSORS", 1000)
    with pytest.raises(ConfigError, match="in 1001 or more tensors"):
        build(composed("model=vit", "model.depth=1000000000"), "model")


def test_the_bound_does_not_change_the_weights():
    torch.manual_seed(0)
    bounded = build(composed("model=vit"), "model")
    torch.manual_seed(0)
    free = type(bounded)(**{k: v for k, v in composed("model=vit").model.items() if k[0] != "_"})
    for one, other in zip(bounded.parameters(), free.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("target", ["torchvision.datasets.MNIST", "torch.optim.SGD"])
def test_a_class_of_another_kind_is_never_built(tmp_path, target):
    cfg = composed("dataset=digits", "model=linear")
    cfg.model = {"_target_": target, "root": str(tmp_path / "made"), "download": True}
    if target == "torch.optim.SGD":
        cfg.model = {"_target_": target, "params": []}
    with pytest.raises(ConfigError, match=r"which is not a torch\.nn\.Module"):
        build(cfg, "model")
    assert not list(tmp_path.iterdir())
