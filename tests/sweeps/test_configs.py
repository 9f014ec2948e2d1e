"""Configs that are read in parts say what the parser reads in all of them."""

import pytest
import yaml
from fabricated import CONFIG, fabricate
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import record
from lab.reading import RunFolderError
from lab.schema import flat
from sweeps import configs

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
KEYS = st.sampled_from(["model", "seed", "name", "_target_", "lr", "a b", "yes", "1", "true", "ö"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def whole(folder):
    """The settings, or the error, as the parser reads the file at once."""
    try:
        return configs.only_settings(flat(record.read_config(folder)))
    except RunFolderError as error:
        return str(error)


def parts(folder):
    try:
        return configs.read(folder)
    except RunFolderError as error:
        return str(error)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("configs") / "run")


@settings(max_examples=25, deadline=None)
@given(content=st.dictionaries(KEYS, VALUES, max_size=5), flow=st.sampled_from([False, None]))
def test_any_config_is_read_alike(run, content, flow):
    text = yaml.dump(content, default_flow_style=flow, allow_unicode=True)
    (run / "config.yaml").write_text(text, encoding="utf-8")
    assert parts(run) == whole(run)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(lines=st.lists(st.text("ab:- \n\"'|>#&*!{}[]\t?%.\r1", max_size=12), max_size=8))
def test_any_text_is_read_alike(run, lines):
    (run / "config.yaml").write_bytes("\n".join(lines).encode())
    assert parts(run) == whole(run)


ODD = [
    "a: 1\na: 2\n",
    "model:\n  a: 1\nmodel:\n  b: 2\n",
    "a: 1\n...\nb: 2\n",
    "a: 1\n---\nb: 2\n",
    "%YAML 1.1\n---\na: 1\n",
    "a: 'one\nb: two'\n",
    'a: "one\nb: two"\nc: 3\n',
    "a: {x: 1,\nb: 2}\n",
    "a: |\n  text\n\n  more\nb: >-\n  folded\n  text\n",
    "classes:\n- a\n- b\nb: 1\n",
    "a: &x 1\nb: *x\n",
    "a: !!python/name:os.system\n",
    "a: 1\n? b\n: 2\n",
    "a: 1\n<<: {b: 2}\n",
    "yes: 1\n",
    "a: 1\rb: 2\n",
    "a: 1\u2028b: 2\n",
    "# a comment\na: 1\n",
    "\ufeffa: 1\n",
    "a:1\n",
    "a: 1\n b: 2\n",
    "a: [\n",
    "- a: 1\n",
    "a:\n  b:\n  c: 1\nseed: 3\nname: x\n",
    "",
    "a: " + "[" * 30 + "]" * 30,
]


@pytest.mark.parametrize("text", ODD)
def test_odd_configs_are_read_alike(run, text):
    (run / "config.yaml").write_text(text, encoding="utf-8")
    assert parts(run) == whole(run)


def test_a_part_is_parsed_once(tmp_path, monkeypatch):
    """What runs have in common is parsed once: that is what makes a thousand of them fast."""
    parsed = []
    parse = configs.reading.parse_yaml
    monkeypatch.setattr(
        configs.reading, "parse_yaml", lambda text: parsed.append(text) or parse(text)
    )
    configs._leaves.cache_clear()
    for seed in range(20):
        configs.read(fabricate(tmp_path / str(seed), seed=seed))
    assert len(parsed) == len(CONFIG) + 20  # and a seed each


def test_what_is_remembered_is_bounded(tmp_path):
    configs._leaves.cache_clear()
    long = "x" * configs.LONGEST
    assert configs.read(fabricate(tmp_path / "long", limit=long))["limit"] == long
    for number in range(configs.MOST + 50):
        configs._leaves(f"limit: {number}\n")
    info = configs._leaves.cache_info()
    assert info.currsize == configs.MOST
    keys = configs._leaves(f"limit: {long[:-20]}\n")
    assert configs._leaves.cache_info().currsize == configs.MOST and keys
