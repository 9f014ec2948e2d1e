"""Random changes of the files of a run folder: each is refused with a sentence, or works.

Short in the default suite; `pytest -m slow tests/lab/test_fuzz.py` tries for FUZZ_SECONDS (300) and
prints how many inputs there were and how many of them were accepted.
"""

import copy
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import apart
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import evaluate
from data import Curriculum
from lab import command_line, reading, record, resume, schema
from lab.build import build, build_schedule
from lab.errors import RunFailed, explain
from lab.state import State
from sweeps import runs, summary

pytestmark = pytest.mark.xdist_group("fuzz")  # the tests share a run, trained by one worker

SECONDS = float(os.environ.get("FUZZ_SECONDS", 300))
WORDS = (
    "", "x", "a b", "1", "-1", "1e-3", "1e400", "${seed}", "${oc.env:HOME}", "${", "${model}",
    "${.x}", "\\${a}", "models.Linear", "models.MLP", "torch.optim.SGD", "os.system",
    "torchvision.datasets.MNIST", "sources.Digits", "/etc/passwd", "../x", "~", "C:\\x", "auto",
    "true", "null", "???", "é", "\u202e", "\x1b[31m", "\x00", "\ud800", "=1", "$x$", "2020-01-01",
    "finished", "running", "failed", "pruned", "damaged",
)  # fmt: skip
KEYS = (
    "x", "_target_", "_partial_", "_args_", "_convert_", "_recursive_", "lr", "root", "seed",
    "epochs", "status", "model", "dataset", "hydra", "defaults", "",
)  # fmt: skip
NUMBERS = (
    *(0, 1, -1, 2, 10, 2**31, 2**63, 10**12, 10**400, -(10**30)),
    *(0.5, -0.0, 1e-300, 1e300, float("inf"), float("nan")),
)
COMMON = (0.1, 0.9, 1.0, 3, 4, 5, 8, 10, 16, 28, 32, 64, 100, 1000, 10**5, 10**6, 10**9)
leaf = st.one_of(
    st.sampled_from([None, True, False, *NUMBERS]),
    st.sampled_from(WORDS),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
)
value = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=4)), inner, max_size=4),
    ),
    max_leaves=12,
)
pieces = st.sampled_from(
    ["&a ", "*a", "!!set ", "!!python/name:os.system ", "<<: ", "? ", "---\n", "{", "[", "]", "}",
     ": ", "\n", " ", "\t", "#", '"', "'", "|", ">", "%", "@", "`", "1e3", "\\", "\x00", ",", "-"]
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory, data_dir) -> Path:
    folder = tmp_path_factory.mktemp("original")
    with apart(folder, data_dir) as call:
        words = ("dataset=digits", "model=linear", "debug=smoke", "epochs=2", "limit=32")
        assert call("script.py", *words, "hydra.run.dir=run") == 0
    result = json.loads((folder / "run/result.json").read_text())
    (folder / "run/result.json").write_text(json.dumps(result | {"status": "interrupted"}))
    return folder / "run"


@pytest.fixture
def run(original, tmp_path, data_dir, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [])
    return Path(shutil.copytree(original, tmp_path / "run"))


def paths_of(node: Any) -> list[tuple]:
    """The places in a tree of dictionaries and lists, as keys from the root to them."""
    found: list[tuple] = []
    left: list[tuple[tuple, Any]] = [((), node)]
    while left:
        path, part = left.pop()
        items = part.items() if isinstance(part, dict) else []
        items = list(enumerate(part))[:3] if isinstance(part, list | tuple) else items
        for key, child in items:
            found.append((*path, key))
            left.append(((*path, key), child))
    return found


def changed(tree: Any, draw: st.DataObject, values: st.SearchStrategy) -> Any:
    """A copy of a tree in which one or two places are replaced, mostly by a value of the same type,
    removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.draw(st.sampled_from([1, 1, 1, 2]))):
        places = paths_of(tree)
        if not places:
            break
        *path, key = draw.draw(st.sampled_from(places))
        node = tree
        for part in path:
            node = node[part]
        action = draw.draw(st.sampled_from(["like", "like", "like", "replace", "remove", "add"]))
        if isinstance(node, tuple):
            continue
        if action == "like" and isinstance(node[key], bool | int | float | str):
            alike = WORDS if isinstance(node[key], str) else (True, False, *NUMBERS, *COMMON)
            node[key] = draw.draw(st.sampled_from(alike))
        elif action == "remove":
            del node[key]
        elif action == "add" and isinstance(node, dict):
            node[draw.draw(st.sampled_from(KEYS))] = draw.draw(values)
        else:
            node[key] = draw.draw(values)
    return tree


def scrambled(text: str, draw: st.DataObject) -> str:
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(text)))
        cut = draw.draw(st.integers(0, 5))
        text = text[:at] + draw.draw(pieces) + text[at + cut :]
    return text


def is_accepted(use: Callable[[], object]) -> bool:
    """Whether `use` works; an exception must have a sentence, as `errors_as_sentences` needs it."""
    try:
        use()
    except RunFailed:
        return False
    except Exception as error:
        sentence = explain(error)
        assert sentence and isinstance(sentence, str), repr(error)
        return False
    return True


def read(run: Path) -> None:
    """What resume=, evaluate.py and the same command again read, up to the data."""
    evaluate.load(run, "cpu")
    command_line.for_script(["script.py", f"resume={run}"])
    config, _ = record.read_run(run)
    cfg = schema.typed(config)
    resume.check_config(run, cfg, by_resume=True)
    optimizer = build(cfg, "optimizer", build(cfg, "model").parameters())
    build_schedule(cfg, optimizer, [2] * min(cfg.epochs, 1000))


def table(run: Path) -> None:
    """What results.py shows: whatever a run folder says, there is a table."""
    found = runs.read([run])
    varied = runs.what_varied(found)
    rows = runs.grouped(found, varied)
    for escape in (summary.one_line, summary.in_markdown):
        assert "\x1b" not in "\n".join(
            [*summary.table(rows, varied, escape), *summary.unfinished(found, escape)]
        )
    assert len(summary.csv_rows(found, varied)) == 2


def fuzz_config(run: Path, draw: st.DataObject) -> bool:
    path = run / "config.yaml"
    text = path.read_text()
    if draw.draw(st.booleans()):
        content = changed(yaml.safe_load(text), draw, value)
        path.write_text(yaml.dump(content, allow_unicode=False), errors="replace")
    else:
        path.write_text(scrambled(text, draw), errors="replace")
    try:
        table(run)
        return is_accepted(lambda: read(run))
    finally:
        path.write_text(text)


def fuzz_result(run: Path, draw: st.DataObject) -> bool:
    path = run / "result.json"
    text = path.read_text()
    if draw.draw(st.booleans()):
        path.write_text(json.dumps(changed(json.loads(text), draw, value)))
    else:
        path.write_text(scrambled(text, draw), errors="replace")
    try:
        table(run)
        status = record.status(run)
        accepted = is_accepted(lambda: record.read_run(run))
        assert accepted == (status != "damaged")
        return accepted
    finally:
        path.write_text(text)


def fuzz_metrics(run: Path, draw: st.DataObject) -> bool:
    path = run / "metrics.csv"
    text = path.read_text()
    path.write_text(scrambled(text, draw), errors="replace")
    (run / "last.pt").rename(run / "away.pt")
    try:
        return is_accepted(lambda: resume.check_has_checkpoint(run))
    finally:
        (run / "away.pt").rename(run / "last.pt")
        path.write_text(text)


dtypes = st.sampled_from(
    [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.complex64]
)
shapes = st.lists(st.integers(0, 70), max_size=3)
tensor = st.one_of(
    st.builds(lambda s, d: torch.ones(s, dtype=d), shapes, dtypes),
    st.builds(lambda s: torch.full(s, float("nan")), shapes),
    st.builds(lambda s: torch.ones(s, requires_grad=True), shapes),
    st.builds(lambda s: torch.ones(s).to_sparse(), shapes),
)
# Of the shapes that a linear model on digits has; expanded, they have one number in memory.
own = st.builds(
    lambda shape, x, kind: kind(shape, x),
    st.sampled_from([(10, 64), (10,), (32,), ()]),
    st.sampled_from([0.0, 1e38, float("inf"), float("nan"), -1.0]),
    st.sampled_from([torch.full, lambda shape, x: torch.tensor(x).expand(shape)]),
)


def fuzz_checkpoint(run: Path, draw: st.DataObject) -> bool:
    path = run / "last.pt"
    whole = path.read_bytes()
    if draw.draw(st.integers(0, 3)):
        content = changed(torch.load(path), draw, st.one_of(value, tensor, own))
        torch.save(content, path)
    else:
        data = bytearray(whole)
        for _ in range(draw.draw(st.integers(1, 8))):
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
        path.write_bytes(data[: draw.draw(st.sampled_from([len(data), len(data) // 2]))])
    try:
        return is_accepted(lambda: train_on(run))
    finally:
        path.write_bytes(whole)


def train_on(run: Path) -> None:
    """Load the checkpoint, and train a step."""
    cfg = schema.typed(OmegaConf.load(run / "config.yaml"))
    model = build(cfg, "model")
    optimizer = build(cfg, "optimizer", model.parameters())
    steps = Curriculum(cfg.epochs + 1, cfg.batch_size, cfg.seed).steps(32)
    scheduler = build_schedule(cfg, optimizer, steps)
    state = State(model, optimizer, scheduler, steps, torch.zeros(32), cfg.seed)
    state.load(run / "last.pt")
    model(torch.ones(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    state.summary()
    state.save(run / "saved.pt")


def is_long(run: Path) -> bool:
    """Whether the run that the config describes would take more than seconds, and rightly so."""
    try:
        cfg = schema.typed(reading.read_yaml(run / "config.yaml"))
        return cfg.epochs > 20 or cfg.dataset.repeats > 100 or cfg.limit is None
    except Exception:  # then it is refused
        return False


@pytest.mark.slow
def test_the_commands_refuse_a_changed_file_with_a_sentence_or_work(run, call, capfd):
    """One of the files is changed, and all commands that read the folder are typed."""
    names = ("config.yaml", "result.json", "metrics.csv", "last.pt")
    whole = {name: (run / name).read_bytes() for name in names}
    count: Counter = Counter()
    started, number = time.monotonic(), 0

    def attempt(draw: st.DataObject) -> None:
        for path in [*run.iterdir(), *run.parent.glob("results.*")]:
            if path.is_file() and path.name not in ("best.pt", "script.log"):
                path.unlink()
        for name, content in whole.items():
            (run / name).write_bytes(content)
        name = draw.draw(st.sampled_from(names))
        if name == "last.pt":
            torch.save(changed(torch.load(run / name), draw, st.one_of(value, tensor)), run / name)
        elif name != "metrics.csv" and draw.draw(st.booleans()):
            content = changed(yaml.safe_load(whole[name]), draw, value)
            text = json.dumps(content) if name == "result.json" else yaml.dump(content)
            (run / name).write_text(text, errors="replace")
        else:
            (run / name).write_text(scrambled(whole[name].decode(), draw), errors="replace")
        if is_long(run):
            return
        for words in (
            ("evaluate.py", f"run={run}"),
            ("results.py", str(run.parent)),
            ("script.py", f"resume={run}"),
        ):
            signal.alarm(60)
            code = call(*words)
            signal.alarm(0)
            output = "".join(capfd.readouterr())
            assert code in (0, 1) and "Traceback" not in output, (words, output)
            count[f"{words[0]} {'works' if code == 0 else 'refuses'}"] += 1

    while time.monotonic() - started < SECONDS / len(FUZZES):
        number += 1
        limits = settings(
            max_examples=10, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        seed(number)(limits(given(st.data())(attempt)))()
    print(dict(count))
    assert len(count) >= 5


FUZZES = {
    function.__name__.removeprefix("fuzz_"): function
    for function in (fuzz_config, fuzz_result, fuzz_metrics, fuzz_checkpoint)
}


def batch(name: str, run: Path, number: int, examples: int) -> Counter:
    """Try so many inputs; how many were accepted and refused."""
    count: Counter = Counter()

    @seed(number)
    @settings(
        max_examples=examples, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def attempt(draw: st.DataObject) -> None:
        count["accepted" if FUZZES[name](run, draw) else "refused"] += 1

    attempt()
    return count


@pytest.mark.parametrize("name", FUZZES)
def test_a_changed_file_is_refused_with_a_sentence_or_works(run, name):
    count = batch(name, run, number=0, examples=20)
    assert count.total() >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZES)
def test_many_changed_files_are_refused_with_a_sentence_or_work(run, name):
    count: Counter = Counter()
    started, number = time.monotonic(), 0
    while time.monotonic() - started < SECONDS / len(FUZZES):
        number += 1
        count += batch(name, run, number, examples=100)
    print(f"{name}: {count.total()} inputs, {count['accepted']} of them accepted")
    assert min(count["accepted"], count["refused"]) > 0


def test_a_fuzzed_reader_still_reads_what_a_run_wrote(run):
    read(run), table(run), train_on(run)
    assert reading.read_yaml(run / "config.yaml") == OmegaConf.to_container(
        OmegaConf.load(run / "config.yaml")
    )
