"""Recipes as overrides: a single run of the same config."""

from functools import partial

import pytest
from conftest import PROJECT, options
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lab.schema import NOT_THE_EXPERIMENT
from sweeps import recipe


def experiment(cfg) -> dict:
    content = OmegaConf.to_container(cfg)
    return {key: content[key] for key in content.keys() - {"hydra", *NOT_THE_EXPERIMENT}}


OTHERS = ["seed=1", "data_dir='a=b'", "name=mine", "fail_fast=false"]
RECIPES = [[f"sweep={name}", *OTHERS] for name in options("sweep")]
RECIPES += [["sweep=odd", "epochs=2", *OTHERS], ["sweep=odd", "optimizer.lr=3", "model.dropout=0"]]
ODD = """# @package _global_
defaults:
  - override /model: vit
  - override /optimizer: sgd
epochs: 5
limit: null
grad_clip: 0.5
device: cpu
optimizer:
  lr: ${skip_easy}
  nesterov: false
model:
  pooling: "it's"
  extra: [a b, 1]
name: odd
"""


@pytest.mark.parametrize("overrides", RECIPES, ids=" ".join)
@pytest.mark.slow
def test_an_expanded_recipe_composes_the_same_config(tmp_path, overrides):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/odd.yaml").write_text(ODD)
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        composed = partial(compose, "config", return_hydra_config=True)
        path = f"hydra.searchpath=[{tmp_path}]"
        found = recipe.expanded(overrides, lambda words: composed([path, *words]))
        assert not any(word.startswith(("sweep=", "name=", "fail_fast=")) for word in found)
        assert experiment(composed(found)) == experiment(composed([path, *overrides]))
