"""Search spaces in Hydra's override syntax. These tests need neither Optuna nor Ax."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lab.errors import ConfigError
from sweeps.space import Choice, Interval, overrides, parse


class FakeConfigLoader:
    """The part of Hydra's config loader that the parser uses."""

    def get_group_options(self, name: str, **_) -> list[str]:
        return ["linear", "mlp"] if name == "model" else []


def parsed(*lines: str):
    return parse(lines, OverridesParser.create(config_loader=FakeConfigLoader()))


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
def test_every_kind_of_parameter_is_parsed(text, expected):
    fixed, space = parsed("seed=1", f"key={text}")
    assert fixed == ["seed=1"] and space == {"key": expected}
    assert type(getattr(space["key"], "low", 0)) is type(getattr(expected, "low", 0))


def test_a_glob_expands_to_the_options_of_a_group():
    assert parsed("model=glob(*)")[1] == {"model": Choice(("linear", "mlp"))}


def test_the_last_override_of_a_key_wins():
    assert parsed("x=interval(0,1)", "y=1,2", "x=3") == (["x=3"], {"y": Choice((1, 2))})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x=interval(1,0)", "below the last"),
        ("x=range(3,4)", "below the last"),
        ("x=choice(1,1)", "has only one value: give two or more"),
        ("x=tag(log,interval(0,1))", "above 0"),
        ("x=tag(log,range(1,9,2))", "no step"),
        ("x=tag(log,choice(1,2))", "not for a choice"),
        ("x=tag(lgo,interval(1,2))", "the tag lgo"),
        ("model=interval(0,1)", "model is a group"),
        ("trial=1,2", "trial=1,2 cannot be searched: trial changes no result"),
        ("checkpoint.every=range(1,9)", "checkpoint.every changes no result. Give one value"),
    ],
)
def test_invalid_search_spaces_are_refused(line, reason):
    with pytest.raises(ConfigError, match=reason):
        parsed(line)


def test_positions_range_from_zero_to_one():
    assert Interval(1e-4, 1e-2, log=True).position(1e-3) == pytest.approx(0.5)
    assert Choice(("a", "b", "c")).position("b") == 0.5


def test_values_become_hydra_overrides():
    values = {"lr": 1e-05, "model.hidden_sizes": "[64,64]", "depth": 3}
    assert overrides(values) == ["lr=1e-05", "model.hidden_sizes=[64,64]", "depth=3"]
