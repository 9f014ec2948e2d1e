"""YAML files that cannot be composed: the sentence names the file and what to correct in it."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, half_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CLASSES = """defaults: [digits, _self_]
num_classes: 2
classes: [no, yes]
"""
HEADER = "# @package _global_\n"
FILES = {
    "experiment/headless": ("epochs: 3\n", "first line must be '# @package _global_'"),
    "experiment/empty": ("", "first line must be '# @package _global_'"),
    "experiment/bom": ("\ufeff" + HEADER + "epochs: 3\n", "without a byte order mark .BOM."),
    "experiment/latin": ((HEADER + "# é\n").encode("latin-1"), "latin.yaml .*it is not UTF-8"),
    "experiment/utf16": ((HEADER + "epochs: 3\n").encode("utf-16"), "utf16.yaml .*not UTF-8"),
    "experiment/binary": (b"\0\1\2", "binary.yaml cannot be read as a config"),
    "experiment/twice": (HEADER + "epochs: 3\nepochs: 4\n", "line 3: found duplicate key epochs"),
    "experiment/bracket": (HEADER + "epochs: [3\nseed: 4\n", "bracket.yaml .*line 3: expected ','"),
    "experiment/tab": (HEADER + "shrink:\n\tshare: 1\n", "tab.yaml .*line 3: found character"),
    "experiment/list": (HEADER + "- 1\n", "experiment/list.*Cannot merge DictConfig with ListConf"),
    "experiment/text": (HEADER + "only words\n", "only words is not a key of the config"),
    "experiment/open": (HEADER + "epochs: ${\n", "open.yaml .*GrammarParseError"),
    "experiment/number": (HEADER + "1: 2\n", "1 is not a key of the config"),
    "experiment/self": (HEADER + "name: &a [*a]\n", "self.yaml cannot be read as a config"),
    "experiment/code": (HEADER + "seed: !!python/name:os.system\n", "could not determine a constr"),
    "experiment/date": (HEADER + "epochs: 2020-01-01\n", "epochs=2020-01-01 is not allowed"),
    "experiment/defaults": (HEADER + "defaults: 5\n", "defaults must be a list .got int"),
    "experiment/group": (HEADER + "defaults:\n  - model: cnn\n", "it is `override /GROUP: OPTION`"),
    "experiment/option": (HEADER + "defaults:\n  - override /model: nope\n", "model=nope does not"),
    "experiment/lr": (HEADER + 'optimizer:\n  lr: "1e-3"\n', "lr='1e-3' is text: without quotes"),
    "experiment/env": (HEADER + "optimizer:\n  lr: ${oc.env:LR}\n", r"oc.decode:\$.oc.env:NAME"),
    "dataset/bool": (CLASSES, "classes=.False, True. is not allowed: it must be a list of words"),
    "model/headless": ("model:\n  _target_: models.MLP\n", "starts with '# @package _global_'"),
    "experiment/below": ("defaults:\n  - override /model: cnn\n", "below.yaml .*first line must"),
    "optimizer/whole": ("_target_: torch.optim.SGD\nlr: 0.1\n", "file must say _partial_: true"),
}  # fmt: skip


@pytest.mark.parametrize("name", half_slow(FILES))
def test_a_file_that_cannot_be_composed_is_named(script, capfd, tmp_path, monkeypatch, name):
    monkeypatch.setenv("LR", "0.1")
    content, message = FILES[name]
    group, _, option = name.partition("/")
    (tmp_path / "own" / group).mkdir(parents=True)
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / "own" / f"{name}.yaml").write_bytes(content)
    assert script("--config-dir", str(tmp_path / "own"), f"{group}={option}") == 1
    output = "".join(capfd.readouterr())
    assert "Traceback" not in output and re.search(message, output), output


# Files by the arguments that make a run read them; the launchers and sweepers have their own tests.
READ_BY = {
    path: f"{path.parent.relative_to(PROJECT / 'config')}={path.stem}"
    for path in sorted((PROJECT / "config").rglob("*.yaml"))
    if path.parent.name not in ("config", "sweep", "help", "launcher", "sweeper", "job_logging")
    and "sweeper" not in path.parts
    and yaml.safe_load(path.read_text())  # logger=none is an empty file
} | {
    PROJECT / "config/config.yaml": "seed=0",
    PROJECT / "config/hydra/job_logging/practical.yaml": "seed=0",
    PROJECT / "config/hydra/launcher/local.yaml": "hydra/launcher=local",
}
BOUNDED = ("dataset=digits", "model=linear", "epochs=1", "limit=40", "batch_size=20")
VALUES = st.sampled_from(
    [None, "text", "", -1, 0, 3, 2.5, True, [1], [], {"a": 1}, {}, "${nope}", "???", "1e-3",
     "models.MLP", float("nan"), [[None]]]
)  # fmt: skip


def paths(node, prefix=()):
    """All places in nested dictionaries and lists, as tuples of keys and indices."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*prefix, key))


@st.composite
def mutations(draw) -> tuple[Path, str]:
    """A file of config/ and a text for it in which a key is missing, retyped, renamed or twice
    there, or in which a line is cut."""
    path = draw(st.sampled_from(sorted(READ_BY)))
    text = path.read_text()
    content = yaml.safe_load(text)
    header = "".join(re.findall("^# @package.*\n", text))
    *above, key = draw(st.sampled_from(list(paths(content))))
    parent = content
    for step in above:
        parent = parent[step]
    how = draw(st.sampled_from(["missing", "retyped", "renamed", "duplicated", "cut"]))
    if how == "missing":
        del parent[key]
    elif how == "retyped":
        parent[key] = draw(VALUES)
    elif how == "renamed" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["a", "lr", 1, "_target_"]))] = parent.pop(key)
    elif how == "duplicated":
        lines = text.splitlines(keepends=True)
        number = draw(st.integers(0, len(lines) - 1))
        return path, "".join([*lines[: number + 1], *lines[number:]])
    elif how == "cut":
        return path, text[: draw(st.integers(0, len(text)))]
    return path, header + yaml.safe_dump(content)


def assert_a_sentence(script, capfd, config: Path, path: Path, text: str) -> None:
    """Run with the mutated file in a copy of config/."""
    copy = config / path.relative_to(PROJECT / "config")
    original = copy.read_bytes()
    copy.write_text(text)
    override = READ_BY[path]
    chosen = [word for word in BOUNDED if word.partition("=")[0] != override.partition("=")[0]]
    try:
        code = script("--config-path", str(config), *chosen, override)
    finally:
        copy.write_bytes(original)
    output = "".join(capfd.readouterr())
    assert code in (0, 1) and "Traceback" not in output, output


FUZZING = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=6
)


@pytest.fixture
def config_copy(tmp_path) -> Path:
    return shutil.copytree(PROJECT / "config", tmp_path / "config")


@FUZZING
@given(mutations())
@pytest.mark.slow
def test_mutated_files_never_cause_a_traceback(script, capfd, config_copy, mutation):
    assert_a_sentence(script, capfd, config_copy, *mutation)


@pytest.mark.slow
@settings(FUZZING, max_examples=500)
@given(mutations())
def test_many_mutated_files_never_cause_a_traceback(script, capfd, config_copy, mutation):
    assert_a_sentence(script, capfd, config_copy, *mutation)
