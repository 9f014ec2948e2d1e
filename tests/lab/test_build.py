"""Classes that a config names: what is told when they do not exist or refuse their arguments."""

import sys

import pytest
import torch
from conftest import composed

from lab.build import build, locate
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
    [
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
    ],
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
