"""The search space in the command line's syntax. Needs neither Optuna nor Ax."""

from dataclasses import fields
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from config import schema
from config.errors import ConfigError
from search_space import Choice, Interval, overrides, parse


class NoGroups:
    """What the parser asks of Hydra's config loader."""

    def get_group_options(self, name: str, **_) -> list[str]:
        return ["linear", "mlp"] if name == "model" else []


def parsed(*lines: str):
    return parse(lines, OverridesParser.create(config_loader=NoGroups()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0,1)", Interval(0.0, 1.0)),
        ("tag(log,interval(1e-4,1e-1))", Interval(1e-4, 1e-1, log=True)),
        ("int(interval(1,10))", Interval(1, 10)),
        ("tag(log,int(interval(1,100)))", Interval(1, 100, log=True)),
        ("range(2,9)", Interval(2, 8)),
        ("range(0,10,4)", Interval(0, 8, step=4)),
        ("range(5,0,-1)", Interval(1, 5)),
        ("range(0,1,0.25)", Interval(0.0, 0.75, step=0.25)),
        ("adam,sgd", Choice(("adam", "sgd"))),
        ("choice(64,128,64)", Choice((64, 128))),
        ("choice([64],[64,64])", Choice(("[64]", "[64,64]"))),
        ("true,null,0.5", Choice(("True", "null", "0.5"))),
        ("choice('a b',c)", Choice((r"a\ b", "c"))),
    ],
)
def test_every_kind(text, expected):
    fixed, space = parsed("seed=1", f"key={text}")
    assert fixed == ["seed=1"] and space == {"key": expected}
    assert type(getattr(space["key"], "low", 0)) is type(getattr(expected, "low", 0))


def test_a_glob_takes_the_options_of_a_group():
    assert parsed("model=glob(*)")[1] == {"model": Choice(("linear", "mlp"))}


def test_the_last_of_two_for_one_key_counts():
    assert parsed("x=interval(0,1)", "y=1,2", "x=3") == (["x=3"], {"y": Choice((1, 2))})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x=interval(1,0)", "below the last"),
        ("x=range(3,4)", "below the last"),
        ("x=choice(1,1)", "leaves no choice"),
        ("x=tag(log,interval(0,1))", "above 0"),
        ("x=tag(log,range(1,9,2))", "no step"),
        ("x=tag(log,choice(1,2))", "not for a choice"),
        ("x=tag(lgo,interval(1,2))", "the tag lgo"),
        ("model=interval(0,1)", "model is a group"),
    ],
)
def test_refused(line, reason):
    with pytest.raises(ConfigError, match=reason):
        parsed(line)


def test_positions_for_the_figures():
    assert Interval(1e-4, 1e-2, log=True).position(1e-3) == pytest.approx(0.5)
    assert Choice(("a", "b", "c")).position("b") == 0.5


def test_values_as_hydra_is_given_them():
    values = {"lr": 1e-05, "model.hidden_sizes": "[64,64]", "depth": 3}
    assert overrides(values) == ["lr=1e-05", "model.hidden_sizes=[64,64]", "depth=3"]


def test_a_run_folder_from_before_there_were_trials_is_still_one():
    config = dict.fromkeys(field.name for field in fields(schema.Config) if field.name != "trial")
    schema.check_foreign(config, Path("config.yaml"))
    del config["seed"]
    with pytest.raises(ConfigError, match="seed is missing"):
        schema.check_foreign(config, Path("config.yaml"))
