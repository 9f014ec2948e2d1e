"""Classes that a config names: what is told when they do not exist or refuse their arguments."""

import sys

import pytest
import torch
import yaml
from conftest import composed, half_slow
from omegaconf import OmegaConf

from lab import schema
from lab.build import build, build_schedule, locate
from lab.errors import ConfigError

MODULES = {
    "own_syntax": ("def f(:\n", r"SyntaxError: invalid syntax \(.*own_syntax.py:1: def f\(:\)"),
    "own_import": ("import nopackage\n", r"No module named 'nopackage' \(.*own_import.py:1: imp"),
    "own_name": ("x = 1\nclass Net(nm.Module):\n    pass\n", r"name 'nm' is.*own_name.py:2: class"),
    "own_from": ("from own_import import x\n", r"No module named 'nopackage' \(.*own_import.py:1"),
    "own_typo": ("from torch.nn import Lineer\n", r"cannot import name 'Lineer'.*own_typo.py:1"),
    "own_tabs": ("if True:\n\tx = 1\n        y = 2\n", r"TabError: .*own_tabs.py:3"),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_cannot_be_imported_is_told_with_its_line(module, tmp_path, monkeypatch):
    code, message = MODULES[module]
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{module}.py").write_text(code)
    (tmp_path / "own_import.py").write_text(MODULES["own_import"][0])
    sys.modules.pop(module, None)
    with pytest.raises(ConfigError, match=rf"^model \({module}.Net\): .*{message}"):
        build(composed(f"model._target_={module}.Net"), "model")


@pytest.mark.parametrize(
    ("group", "override", "message"),
    half_slow([
        ("optimizer", "optimizer._target_=torch.optim.RMSProp", "torch.optim has no RMSProp. Did"),
        ("optimizer", "optimizer._target_=torch.optm.Adam", "there is no module torch.optm"),
        ("optimizer", "optimizer._target_=torch.nn.Linear", "optimizer.lr is not an argument of"),
        ("optimizer", "optimizer.betas=['0.9','0.99']", r"betas\[1\]='0.99' is text: without"),
        ("optimizer", "+optimizer.eps='1e-8'", r"optimizer.eps='1e-8' is text"),
        ("optimizer", "optimizer.weight_decay=-1", "Invalid weight_decay value: -1"),
        ("model", "model._target_=models.MLPP", "models has no MLPP. Did you mean MLP"),
        ("model", "model._target_=models.Zzz", "models has no Zzz. It has .*MLP"),
        ("model", "model._target_=models", "is not a class: write MODULE.CLASS"),
        ("model", "model._target_=MLP", "it is not the full name of a class: write MODULE.MLP"),
        ("model", "model._target_=nets.Net", "there is no module nets"),
        ("model", "model._target_=models.MLP.nope", "models.MLP has no nope"),
        ("model", "model._target_=builtins.dict", "gives a dict, which is not a torch.nn.Module"),
        ("model", "model.dropout=true", "model.dropout=true is not allowed: models.MLP takes"),
        ("model", "model.hidden_sizes=[true]", "every size must be a whole number"),
        ("model", "model.dropout={_target_:a.B}", "model.dropout .a.B.: there is no module a"),
    ]),
    ids=str,
)  # fmt: skip
def test_what_cannot_be_built_is_refused(group, override, message):
    cfg = composed(override)
    arguments = [[torch.nn.Parameter(torch.zeros(1))]] if group == "optimizer" else []
    with pytest.raises(ConfigError, match=message):
        build(cfg, group, *arguments)


def test_a_dataset_is_located_but_not_loaded():
    assert locate(composed("dataset=digits"), "dataset.source").func.__name__ == "Digits"
    with pytest.raises(ConfigError, match=r"sources has no Digit. Did you mean Digits"):
        locate(composed("dataset.source._target_=sources.Digit"), "dataset.source")
    with pytest.raises(ConfigError, match=r"dataset.source.foo is not an argument of"):
        locate(composed("dataset=digits", "+dataset.source.foo=1"), "dataset.source")


def optimizer_of(text: str, *words: str):
    """An optimizer whose node in the config is `text`, and the parameters that it was given."""
    cfg = composed(*words)
    cfg.optimizer = OmegaConf.create(yaml.safe_load(text) | {"_partial_": True, "_convert_": "all"})
    parameters = [torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(4))]
    return cfg, build(schema.typed(cfg), "optimizer", iter(parameters)), parameters


TAKE_NO_CLOSURE = sorted(
    name for name, found in vars(torch.optim).items()
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
)  # fmt: skip


@pytest.mark.parametrize("name", TAKE_NO_CLOSURE)
def test_every_optimizer_of_torch_is_built_without_an_lr_and_scheduled(name):
    cfg, optimizer, parameters = optimizer_of(f"_target_: torch.optim.{name}")
    assert all(weights.eq(1).all() and weights.grad is None for weights in parameters)
    assert all(state.get("step", 0) == 0 for state in optimizer.state.values())
    schedule = build_schedule(cfg, optimizer, [5, 5])
    default = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1))]).defaults["lr"]
    rates = []
    for _ in range(10):
        rates.append(schedule.lr)
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(float(default), rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{_target_: torch.optim.LBFGS}", r"LBFGS.step\(\) missing 1 .*'closure'. script.py calls"),
        ("{_target_: torch.optim.SparseAdam}", "does not support dense gradients.*needs no more"),
        (
            "{_target_: own_optimizers.Needy}",
            "ValueError|a closure, please. script.py calls its st",
        ),
    ],
)
def test_optimizers_that_need_a_closure_or_sparse_gradients_are_refused(
    own_optimizers, text, message
):
    with pytest.raises(ConfigError, match=f"^optimizer .*{message}"):
        optimizer_of(text)


def test_an_optimizer_of_your_own_needs_no_lr_at_all(own_optimizers):
    cfg, optimizer, _ = optimizer_of("{_target_: own_optimizers.Signs, size: 0.5}")
    schedule = build_schedule(cfg, optimizer, [5, 5])
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["size"] == 0.5 and "lr" in optimizer.param_groups[0]


OWN = """
import torch

class Signs(torch.optim.Optimizer):
    def __init__(self, params, size):
        super().__init__(params, {"size": size})

    def step(self):
        pass

class Needy(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        if closure is None:
            raise ValueError("a closure, please")
"""


@pytest.fixture
def own_optimizers(tmp_path, monkeypatch):
    (tmp_path / "own_optimizers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_optimizers", raising=False)


def test_an_lr_of_null_is_that_of_the_class_and_text_is_refused():
    for value in (None, 0.1):
        cfg = composed("optimizer.lr=null" if value is None else f"optimizer.lr={value}")
        schema.check(cfg)
        optimizer = build(cfg, "optimizer", [torch.nn.Parameter(torch.ones(1))])
        assert optimizer.param_groups[0]["lr"] == (value or 1e-3)
    with pytest.raises(
        ConfigError, match=r"optimizer.lr=0 is not allowed: it must be a number abo"
    ):
        schema.check(composed("optimizer.lr=0"))
