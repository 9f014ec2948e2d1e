"""Keys that were added to the schema do not change the configs of before."""

from conftest import composed, options
from omegaconf import OmegaConf

from lab import schema


def test_a_key_that_was_added_means_the_same_as_a_missing_one():
    config = OmegaConf.to_container(composed("dataset=mnist"), resolve=True)
    older = config | {"dataset": {k: v for k, v in config["dataset"].items() if k != "repeats"}}
    assert config["dataset"]["repeats"] == 1
    assert schema.flat(config) == schema.flat(older)
    digits = schema.flat(OmegaConf.to_container(composed("dataset=digits"), resolve=True))
    assert int(digits["dataset.repeats"]) > 1


def test_debug_shows_each_image_once():
    for debug in options("debug"):
        assert composed("dataset=digits", f"debug={debug}").dataset.repeats == 1
