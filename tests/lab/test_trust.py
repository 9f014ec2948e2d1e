from dataclasses import fields
from pathlib import Path

import pytest

from lab import schema, trust
from lab.errors import ConfigError

SOURCE = Path("config.yaml")


def test_a_config_of_an_older_run_without_the_key_trial_is_accepted():
    config = dict.fromkeys(field.name for field in fields(schema.Config) if field.name != "trial")
    trust.check_foreign(config, SOURCE)
    del config["seed"]
    with pytest.raises(ConfigError, match="seed is missing"):
        trust.check_foreign(config, SOURCE)


def test_old_names_of_moved_classes_are_replaced_in_targets():
    old = {"dataset": {"source": {"_target_": "datasets.Digits"}}, "name": "datasets.Digits"}
    new = {"dataset": {"source": {"_target_": "sources.Digits"}}, "name": "datasets.Digits"}
    assert trust.with_current_names(old) == new
    assert trust.with_current_names(new) == new
