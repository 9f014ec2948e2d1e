import time
from pathlib import Path

import pytest
from conftest import half_slow

from lab import references
from lab.errors import ConfigError

SOURCE = Path("config.yaml")


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("plain: text", False),
        ("${a.b}", False),
        ("${a[b]} and ${.c}: ${..d}", False),
        ("${a.${b}}", False),
        (r"\${oc.env:HOME}", False),
        (r"\\${oc.env:HOME}", True),
        ("${oc.env:HOME}", True),
        ("${oc.${a}:HOME}", True),
        ("${a.${oc.env:HOME}}", True),
        ("${now:%Y}", True),
        ("${ns.${a}.${b}:}", True),
    ],
)
def test_resolvers_are_told_from_references(text, calls):
    assert references.calls_resolver(text) is calls


def chain(count: int, times: int) -> dict:
    return {f"k{n}": f"${{k{n + 1}}}" * times for n in range(count)} | {f"k{count}": "x"}


@pytest.mark.parametrize(
    "config",
    [chain(10, 1), chain(3, 10), {"a": "${b.c}", "b": {"c": "${d}"}, "d": [1, "${e}"], "e": 2}],
)
def test_references_of_a_config_are_accepted(config):
    references.resolved(config, SOURCE)


@pytest.mark.parametrize(
    "config",
    half_slow(
        [
            chain(20, 10),
            {f"k{n}": {"a": f"${{k{n + 1}}}", "b": f"${{k{n + 1}}}"} for n in range(60)},
            {f"k{n}": [f"${{k{n + 1}}}"] * 9 for n in range(60)},
            {"a": {"x": "${b}"}, "b": {"y": "${a}"}},
            {"a": list(range(10_000)), **{f"k{n}": "${a}" for n in range(100)}},
        ]
    ),
)
def test_references_that_grow_without_end_are_refused_at_once(config):
    started = time.process_time()
    with pytest.raises(ConfigError, match="its references lead in circles, or to more than"):
        references.resolved(config, SOURCE)
    assert time.process_time() - started < 5


def test_a_reference_that_leads_nowhere_is_left_to_its_user():
    assert references.resolved({"a": "${missing}"}, SOURCE) == {"a": "${missing}"}
