import re
import sys

import pytest
import torch
from conftest import composed, half_slow, run_folders
from torch import nn

from lab.build import build
from lab.errors import ConfigError
from lab.generators import generators
from lab.model_check import check_model

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, *, in_channels, image_size, num_classes, **options):
        super().__init__()
        self.head = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images):
        return self.head(images.flatten(1))

class WrongFlatten(Net):
    def __init__(self, **facts):
        super().__init__(**facts)
        self.head = nn.Linear(100, 10)

class FlattenedTooLittle(Net):
    def forward(self, images):
        return self.head(images.flatten(2))

class NoSuper(nn.Module):
    def __init__(self, **facts):
        self.head = nn.Linear(64, 10)

class NoSuperNorLayers(nn.Module):
    def __init__(self, **facts):
        self.width = 3

class NoReturn(Net):
    def forward(self, images):
        self.head(images.flatten(1))

class Pair(Net):
    def forward(self, images):
        return super().forward(images), images

class PairInTraining(Net):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits

class FiveLogits(Net):
    def forward(self, images):
        return super().forward(images)[:, :5]

class Classes(Net):
    def forward(self, images):
        return super().forward(images).argmax(1)

class Array(Net):
    def forward(self, images):
        return super().forward(images).detach().numpy()

class Detached(Net):
    def forward(self, images):
        return super().forward(images).detach()

class Misspelt(Net):
    def forward(self, images):
        return self.haed(images)

class NoForward(nn.Module):
    def __init__(self, **facts):
        super().__init__()

class Endless(Net):
    def forward(self, images):
        return self.forward(images)

class Silent(Net):
    def forward(self, images):
        assert len(images) > 99

class NameMissing(Net):
    def __init__(self, **facts):
        super().__init__(**facts)
        self.norm = n.BatchNorm2d(3)

class Caused(Net):
    def __init__(self, **facts):
        try:
            {}["relu6"]
        except KeyError as error:
            raise RuntimeError("unknown activation") from error

class TextWidth(Net):
    def __init__(self, width="16", **facts):
        super().__init__(**facts)
        self.conv = nn.Conv2d(1, width, 3)

class FailsInTraining(Net):
    def forward(self, images):
        return self.nope if self.training and len(images) > 2 else super().forward(images)

class NanInEvaluation(Net):
    def forward(self, images):
        logits = super().forward(images)
        return logits if self.training else logits / 0

class Lazy(nn.Sequential):
    def __init__(self, *, in_channels, image_size, num_classes):
        super().__init__(
            nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
            nn.LazyLinear(num_classes),
        )

class NotASchedule:
    def __init__(self, optimizer):
        pass

class Stuck(torch.optim.SGD):
    def step(self):
        return self.params[0]
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)


@pytest.mark.parametrize(
    ("name", "message"),
    half_slow(
        [
            (
                "WrongFlatten",
                r"mat1 and mat2 shapes.*own_nets.py:\d+: return self.head.*must accept",
            ),
            ("FlattenedTooLittle", r"returns a tensor \(2, 1, 10\)"),
            ("NoSuper", r"cannot assign module .*own_nets.py:\d+.* Call super.+ first"),
            ("NoSuperNorLayers", "its constructor does not call super"),
            ("NoReturn", "returns None, but the logits of 2 images.*Is a return missing"),
            ("Pair", r"returns a tuple, but the logits .* float tensor \(2, 10\)"),
            ("PairInTraining", "returns a tuple"),
            ("FiveLogits", r"returns a tensor \(2, 5\).*last layer must have num_classes outputs"),
            ("Classes", "returns a tensor of int64"),
            ("Array", "returns a ndarray"),
            ("Detached", "returns logits without a gradient"),
            ("Misspelt", r"no attribute 'haed' \(.*own_nets.py:\d+: return self.haed"),
            ("NoForward", 'NotImplementedError: .*missing the required "forward" function'),
            ("Endless", r"RecursionError: .*own_nets.py:\d+: return self.forward"),
            ("Silent", r"AssertionError \(.*own_nets.py:\d+: assert len"),
            ("NameMissing", r"NameError: name 'n' is not defined \(.*own_nets.py:\d+: self.norm ="),
            (
                "Caused",
                r"RuntimeError: unknown activation, caused by KeyError: 'relu6' \(.*own_nets",
            ),
            ("Nett", "own_nets has no Nett. Did you mean Net?"),
        ]
    ),
)
def test_a_model_that_cannot_train_is_refused_with_its_line(nets, name, message):
    cfg = composed("dataset=digits", f"model._target_=own_nets.{name}")
    with pytest.raises(ConfigError, match=f"^model .own_nets.{name}.*{message}"):
        check_model(build(cfg, "model"), cfg, [8])


def test_a_number_in_quotes_is_told(nets):
    cfg = composed("dataset=digits", "model._target_=own_nets.TextWidth", "+model.width='16'")
    with pytest.raises(ConfigError, match=r"model.width='16' is text: without quotes it is a num"):
        build(cfg, "model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model._target_=own_nets.FailsInTraining"], r"model .*own_nets.py:\d+: return self.nope"),
        (["model._target_=own_nets.NanInEvaluation"], "loss in evaluation became nan: lower"),
        (["optimizer=sgd", "optimizer._target_=own_nets.Stuck"], r"optimizer .*own_nets.py:\d+"),
        (["scheduler=cosine", "scheduler.T_max=0"], "scheduler .*Check its arguments: T_max=0"),
        (["scheduler.pct_start=0.2", "batch_size=12"], "scheduler .*pct_start=0.2"),
        (["scheduler.total_steps=1", "batch_size=8"], "scheduler .*total steps is 1"),
        (["model=cnn", "val_size=1436"], "model .models.FCNN.*Batch norm needs two images"),
    ],
    ids=lambda value: " ".join(value),
)
def test_errors_of_a_training_step_are_sentences(nets, script, capfd, tmp_path, arguments, message):
    assert script("dataset=digits", "debug=smoke", "limit=64", *arguments) == 1
    output = "".join(capfd.readouterr())
    assert "Traceback" not in output and re.search(message, output), output
    assert (run_folders(tmp_path)[0] / "result.json").read_text().count("NaN") == 0


@pytest.mark.parametrize("model", ["cnn", "mlp"])  # batch norm, dropout
def test_the_check_changes_neither_the_model_nor_random_generators(model):
    cfg = composed("dataset=digits", f"model={model}")
    built = build(cfg, "model")
    weights = {name: value.clone() for name, value in built.state_dict().items()}
    before = generators()
    check_model(built, cfg, [8])
    after = generators()
    assert built.training and before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert all(torch.equal(weights[name], value) for name, value in built.state_dict().items())
    assert all(parameter.grad is None for parameter in built.parameters())


def test_lazy_layers_are_accepted():
    cfg = composed("dataset=digits")
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    check_model(model, cfg, [8])
    assert model[1].weight.shape == (10, 64) and not model[1].weight.is_inference()


@pytest.mark.parametrize("count", [5, 12])
def test_a_model_with_another_number_of_outputs_is_refused_before_the_data(
    script, capfd, monkeypatch, tmp_path, count
):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "nothing"))
    assert script("model=linear", f"model.num_classes={count}") == 1
    output = "".join(capfd.readouterr())
    assert f"returns a tensor (2, {count}), but the logits of 2 images must be a float" in output
    assert "since dataset.num_classes=10. Its last layer must have num_classes outputs" in output


def test_a_model_with_lazy_layers_trains_resumes_and_is_evaluated(nets, script, evaluate, capfd):
    words = ("model._target_=own_nets.Lazy", "model=linear", "dataset=digits", "debug=smoke")
    assert script(*words, "ema=0.9", "hydra.run.dir=run") == 0
    assert script("resume=run", "epochs=2", "trust=true") == 0
    capfd.readouterr()
    assert evaluate("run=run", "trust=true") == 0
    said, recorded = re.findall(r"(?:accuracy|recorded) ([\d.]+)%", capfd.readouterr().out)[:2]
    assert said == recorded


def test_lazy_layers_get_the_same_weights_from_the_same_seed(nets):
    cfg = composed("model._target_=own_nets.Lazy", "model=linear", "dataset=digits")
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        model = build(cfg, "model")
        check_model(model, cfg, [8])
        weights.append(model.state_dict())
    assert all(map(torch.equal, weights[0].values(), weights[1].values()))
    assert model[1].num_batches_tracked == 0 and model[1].running_var.eq(1).all()
