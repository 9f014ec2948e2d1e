"""Networks of torchvision and timm as models, for any number of channels."""

import sys

import pytest
import torch
from conftest import composed

from lab import networks
from lab.build import build
from lab.errors import ConfigError


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_network_of_torchvision_takes_any_number_of_channels(name, channels):
    model = networks.from_torchvision(name=name, in_channels=channels, num_classes=7).eval()
    assert model(torch.randn(2, channels, 32, 32)).shape == (2, 7)
    weights = model.get_parameter("conv1.weight" if name == "resnet18" else "features.0.0.weight")
    assert weights.shape[1] == channels and 0.02 < weights.std() < 0.3


def test_the_names_of_the_weights_are_those_of_torchvision():
    """So that its files of weights can be loaded by init_from."""
    import torchvision

    own = networks.from_torchvision(name="resnet18", in_channels=1, num_classes=10)
    assert own.state_dict().keys() == torchvision.models.resnet18().state_dict().keys()


def test_an_unknown_network_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"^model \(models.from_torchvision\): Unknown model res"):
        build(composed("model=resnet18", "model.name=resnet19"), "model")


def test_timm_gives_networks_of_any_name_and_refuses_addresses():
    pytest.importorskip("timm", reason="needs env/requirements-timm.txt")
    cfg = composed("model=timm", "dataset=digits")
    assert build(cfg, "model")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ConfigError, match=r"Unknown model \(nonet\)"):
        build(composed("model=timm", "model.name=nonet"), "model")
    for address in ("hf-hub:somebody/net", "local-dir:/tmp/net", "../net"):
        cfg.model.name = address
        with pytest.raises(ConfigError, match="is not the name of a network"):
            build(cfg, "model")


def test_a_missing_package_names_the_file_that_lists_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for target in ("models.from_timm", "timm.models.Net"):
        with pytest.raises(ConfigError, match=r"pip install -r env/requirements-timm.txt\."):
            build(composed("model=timm", f"model._target_={target}"), "model")
