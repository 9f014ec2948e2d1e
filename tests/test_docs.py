"""What README.md and docs/ state: links, files, counts, commands, and the code to type."""

import argparse
import math
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from conftest import PROJECT, options
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.utils import instantiate

import models
import sources
from lab import command_line, newest, picture_config, provenance, schema, trust
from lab.build import build

README = PROJECT / "README.md"
DOCS = [README, *sorted((PROJECT / "docs").glob("*.md"))]
SCRIPTS = ("script.py", "evaluate.py", "results.py", "sources.py")
# Folders of runs, which the reader has and this project has not.
PLACEHOLDER = re.compile(r"FOLDER|runs/\S+")
# Blocks of code that quote a file. All others are to be typed: new files, or classes of a module.
QUOTED = ("config/config.yaml",)
# Inline code: overrides that are refused, and what is not an override of script.py.
REFUSED = ("epocs=3",)
NO_OVERRIDE = re.compile(r"(run|resume|trust|data_dir|weights_only)=.*|.*(=|…|NAME)")
OVERRIDE = re.compile(r"[+~]*[a-z_]+([./][a-z_]+)*=\S*")
FLAGS_WITH_A_VALUE = ("--cfg", "-sc", "--config-dir")
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen"
)
NUMBERS = {word: number for number, word in enumerate(NUMBERS.split())}
GROUPS = ("model", "optimizer", "scheduler", "dataset")


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


def blocks(language: str) -> list[str]:
    """The blocks of code in a language, of all pages."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [block for path in DOCS for block in pattern.findall(path.read_text())]


def inline_code() -> list[str]:
    spans = [span for path in DOCS for span in re.findall(r"`([^`]+)`", prose(path))]
    return [" ".join(span.split()) for span in spans]


def snippets(language: str) -> dict[str, str]:
    """The blocks by the file that they belong to, whose name is in a comment at their top."""
    found = {}
    for block in blocks(language):
        name = re.match(r"(?:# @package _global_\n)?# ([\w/]+\.\w+)\n", block)
        assert name, f"a block in {language} does not name its file:\n{block}"
        found[name[1]] = block
    return found


@dataclass(frozen=True)
class Command:
    """`python SCRIPT WORDS`, and the comment that follows it in a block."""

    script: str
    words: tuple[str, ...]
    comment: str = field(default="", compare=False)

    def __str__(self) -> str:
        return shlex.join(["python", self.script, *self.words])

    @property
    def overrides(self) -> list[str]:
        before = ("", *self.words)
        return [
            word for flag, word in zip(before, self.words, strict=False)
            if not word.startswith("-") and flag not in FLAGS_WITH_A_VALUE
        ]  # fmt: skip


@cache
def commands() -> list[Command]:
    """Every `python …` in blocks and in inline code, and every inline list of overrides."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    found = []
    for line in [*lines, *inline_code()]:
        text = line.split("$(")[-1].split(')"')[0]
        found += re.findall(r"(?:python|torchrun(?: --\S+)+) \S+\.py.*", text)
    read = []
    for line in found:
        text, _, comment = line.partition(" #")
        _, script, *words = shlex.split(re.sub(r"^(torchrun) (--\S+ )+", r"\1 ", text))
        read.append(Command(script, tuple(words), comment.strip()))
    for span in inline_code():
        words = [] if span in REFUSED else span.split()
        if (
            words
            and all(map(OVERRIDE.fullmatch, words))
            and not any(map(NO_OVERRIDE.fullmatch, words))
        ):
            read.append(Command("script.py", tuple(words)))
    return list(dict.fromkeys(read))


def commands_of(*scripts: str) -> list[Command]:
    return [command for command in commands() if command.script in scripts]


def benchmark_commands() -> list[Command]:
    return [command for command in commands() if command.script.startswith("benchmarks/")]


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The project after all blocks of code were typed: a copy of config/ with the YAML files, the
    scripts beside it, and the classes added to the modules."""
    root = tmp_path_factory.mktemp("typed")
    shutil.copytree(PROJECT / "config", root / "config")
    for name, text in snippets("yaml").items():
        if name not in QUOTED:
            (root / name).write_text(text)
    for command in commands_of("sources.py"):  # which describes a folder of the reader's pictures
        name = command.words[command.words.index("--name") + 1]
        shutil.copy(root / "config/dataset/cifar10.yaml", root / f"config/dataset/{name}.yaml")
    with pytest.MonkeyPatch.context() as patch:
        for name, text in snippets("python").items():
            if module := {"models.py": models, "sources.py": sources}.get(name):
                values = dict(vars(module))
                exec(text, values)
                for key in re.findall(r"^class (\w+)", text, re.MULTILINE):
                    patch.setattr(module, key, values[key], raising=False)
            else:
                (root / name).write_text(text)
        yield SimpleNamespace(root=root, config=root / "config")


def composed_in(folder: Path, name: str, overrides: list[str]):
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(name, overrides=overrides, return_hydra_config=True)


def values_of(overrides: list[str]) -> list[list[str]]:
    """For each override, what a sweep makes of it: one override per value."""
    found = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if not override.is_sweep_override():
            found.append([override.input_line])
        elif isinstance(override.value(), IntervalSweep):
            found.append([f"{override.key_or_group}={override.value().start}"])
        else:
            key = override.get_key_element()
            found.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    return found


def all_overrides(config: Path, command: Command) -> list[list[str]]:
    """As `values_of`, with the sweep of a recipe."""
    given = values_of(command.overrides)
    recipe = next((word for word in command.overrides if word.startswith("sweep=")), None)
    if recipe:
        params = composed_in(config, "config", [recipe]).hydra.sweeper.params
        own = {values[0].partition("=")[0] for values in given}
        lines = [f"{key}={value}" for key, value in params.items() if key not in own]
        given += values_of(lines)
    return given


def check_composes(config: Path, overrides: list[list[str]]) -> None:
    """Compose configs in which every value occurs at least once, and build what they name.

    One number stands for all others that a key is given: seeds, for instance, are alike.
    """
    kinds = []
    for values in overrides:
        by_kind = {re.sub(r"=-?[\d.]+(e-?\d+)?$", "=NUMBER", value): value for value in values}
        kinds.append(list(by_kind.values()))
    for index in range(max(map(len, kinds), default=1)):
        cfg = composed_in(config, "config", [values[index % len(values)] for values in kinds])
        del cfg.hydra
        cfg.name = "now"  # the default depends on Hydra's own part
        schema.check(cfg)
        if cfg.model._target_ == "models.from_timm":
            pytest.importorskip("timm", reason="needs env/requirements-timm.txt")
            cfg.model.pretrained = False  # no download
        build(cfg, "optimizer", build(cfg, "model").parameters())


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200


def test_links_lead_to_files_and_headings():
    found = 0
    for path in DOCS:
        for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
            if target.startswith("https://"):
                continue
            name, _, heading = target.partition("#")
            page = path.parent / name if name else path
            assert page.exists(), f"{path.name}: {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
                assert heading in {title.lower().replace(" ", "-") for title in titles}, target
            found += 1
    assert found > 20


def test_files_that_are_named_exist():
    to_type = {**snippets("yaml"), **snippets("python")}
    tops = {path.name for path in PROJECT.iterdir()}
    found = 0
    for span in inline_code():
        is_path = re.fullmatch(r"[\w.-]+(/[\w.-]+)*\.(py|yaml|md|txt|yml)|[\w.-]+/[\w./-]*", span)
        if not is_path or span.startswith(("runs/", "data/", "mine/")):
            continue
        if span.endswith(".py") or span.partition("/")[0] in tops:
            assert span in to_type or "NAME" in span or (PROJECT / span).exists(), span
            found += 1
    assert found > 30


def test_commands_are_found():
    assert len(commands_of("script.py")) > 50
    assert len(commands_of("evaluate.py")) >= 3
    assert len(commands_of("results.py")) >= 3
    assert len(commands_of("sources.py")) >= 2
    assert len(benchmark_commands()) >= 1
    assert {command.script for command in commands()} >= set(SCRIPTS)


def test_no_command_is_overlooked():
    """Every line of a block is one that is checked, or begins with another program."""
    languages = {
        word for path in DOCS for word in re.findall(r"^ *```(\w+)", path.read_text(), re.M)
    }
    assert languages == {"bash", "yaml", "python"}
    others = ("pip", "uv", "conda", "pytest", "tail", "watch", "optuna-dashboard", "#")
    for block in blocks("bash"):
        for line in filter(None, block.splitlines()):
            assert line.startswith(("python ", "torchrun ", *others)), line
    for command in commands():
        assert (PROJECT / command.script).is_file(), command


@pytest.mark.parametrize("command", commands_of("script.py"), ids=str)
@pytest.mark.slow
def test_commands_of_the_script_compose(typed, command):
    if any(word.startswith("resume=") for word in command.words):
        # The config is that of the folder: the others change values, which any config has.
        words = tuple(word for word in command.words if not word.startswith("resume="))
        assert all(command_line.key_of(word) not in GROUPS for word in words)
        command = Command(command.script, words)
    check_composes(typed.config, all_overrides(typed.config, command))


def test_what_is_said_to_be_refused_is_refused(typed):
    for override in REFUSED:
        assert override in inline_code()
        with pytest.raises(Exception, match=override.partition("=")[0]):
            composed_in(typed.config, "config", [override])


@pytest.mark.parametrize("command", commands_of("evaluate.py"), ids=str)
def test_commands_of_evaluate_compose(typed, command):
    words = ["FOLDER" if word == newest.LAST else word for word in command.words]  # there is none
    words = command_line.for_evaluate(["evaluate.py", *words])[1:]
    cfg = composed_in(typed.config, "evaluate", words)
    assert PLACEHOLDER.fullmatch(cfg.run)


@pytest.mark.parametrize("command", commands_of("results.py"), ids=str)
def test_results_takes_folders(command):
    folders = [word for word in command.words if word != "--watch"]
    assert folders and all(map(PLACEHOLDER.fullmatch, folders))


@pytest.mark.parametrize("command", commands_of("sources.py"), ids=str)
def test_a_folder_of_pictures_is_described_with_options_that_exist(command):
    if command.words != ("FOLDER",):
        options = picture_config.parser("").parse_args(command.words)
        picture_config.check(options)


class Parsed(Exception):
    """Raised instead of a benchmark, after its arguments were accepted."""


def only(parse: Callable) -> Callable:
    """`parse`, a method of a parser, with nothing after it."""

    def parse_only(*arguments):
        parse(*arguments)
        raise Parsed

    return parse_only


@pytest.mark.parametrize("command", benchmark_commands(), ids=str)
def test_benchmarks_accept_their_arguments(monkeypatch, typed, command):
    path = PROJECT / command.script
    if "options.parse" not in path.read_text():
        assert all(word.isdigit() for word in command.words)
        return
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "argv", [path.name, *command.words])
    main = runpy.run_path(str(path), run_name="benchmark")["main"]
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(
            argparse.ArgumentParser, name, only(getattr(argparse.ArgumentParser, name))
        )
    with pytest.raises(Parsed):  # SystemExit if an argument is unknown
        main()
    check_composes(typed.config, values_of([w for w in command.words if OVERRIDE.fullmatch(w)]))


def number(word: str) -> int:
    return NUMBERS[word.lower()] if word.lower() in NUMBERS else int(word)


def shipped(group: str) -> set[str]:
    """The options of a group, without those that a reader has added."""
    tracked = provenance.git("ls-files", f"config/{group}")
    if not tracked:
        pytest.skip("without git, files that a reader has added cannot be told apart")
    names = {Path(name).stem for name in tracked.splitlines()}
    return names - {Path(name).stem for name in snippets("yaml") if name not in QUOTED}


def test_counts_of_options():
    found = 0
    words = rf"(?i)\b({'|'.join(NUMBERS)}|\d+)"
    sizes = {group: len(shipped(group)) for group in GROUPS}
    for path in DOCS:
        text = " ".join(prose(path).split())
        for count, group in re.findall(rf"{words} ({'|'.join(GROUPS)})s\b", text):
            assert number(count) == sizes[group], f"{path.name} says {count} {group}s: correct it"
            found += 1
        for count in re.findall(rf"{words} small files", text):
            assert number(count) == sum(sizes.values())
            found += 1
        for count in re.findall(rf"{words} combinations", text):
            assert number(count) == math.prod(sizes.values())
            found += 1
    assert found >= 6


def test_numbers_of_jobs(typed):
    found = 0
    for command in commands_of("script.py"):
        if stated := re.search(r"(\d+) jobs", command.comment):
            sizes = map(len, all_overrides(typed.config, command))
            assert math.prod(sizes) == int(stated[1]), command
            found += 1
    assert found >= 8


def test_what_the_readme_says_of_the_four_files():
    text = README.read_text()
    section = text[text.index("## What you read") : text.index("## Part 1")]
    files = re.findall(r"^- \[`(\w+\.py)`\]", section, re.MULTILINE)
    assert number(re.search(r"(\w+) files, about", section)[1]) == len(files) == 4
    lines = sum(len((PROJECT / name).read_text().splitlines()) for name in files)
    assert lines == pytest.approx(int(re.search(r"about (\d+) lines", section)[1]), rel=0.1)
    script = (PROJECT / "script.py").read_text()
    first, fifth = script.split("# 1. ")[1], script.split("# 5. ")[1]
    assert 'build(cfg, "model")' in section and 'build(cfg, "model")' in first.split("# 2. ")[0]
    assert "evaluate(model, test_set" in fifth and script.count("evaluate(model, test_set") == 1
    training = (PROJECT / "training.py").read_text()
    epoch = training[training.index("def train_epoch") : training.index("\ndef ", 500)]
    assert "optimizer.step()" in section and "optimizer.step()" in epoch


@pytest.mark.parametrize("name", QUOTED)
def test_quotations_are_in_the_files(name):
    """The block has lines of the file, in their order and without their comments."""
    lines = iter(line.partition("#")[0].rstrip() for line in (PROJECT / name).open())
    for line in snippets("yaml")[name].splitlines():
        line = line.partition("#")[0].rstrip()
        assert not line or line in lines, f"{name}: {line}"


def test_part_2_adds_an_optimizer(typed):
    cfg = composed_in(typed.config, "config", ["optimizer=rmsprop"])
    optimizer = build(cfg, "optimizer", [torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.RMSprop)


def test_part_2_says_when_a_scheduler_is_stepped():
    text = " ".join(README.read_text().split())
    gamma, batches = re.search(
        r"the lr by ([\d.]+) after each of the (\d+) batches of an MNIST epoch", text
    ).groups()
    cfg = composed_in(PROJECT / "config", "config", ["scheduler=step"])
    assert (cfg.scheduler.interval, cfg.scheduler.step_size) == ("epoch", 1)
    assert cfg.scheduler.gamma == float(gamma)
    assert round(cfg.dataset.train_size * (1 - cfg.val_size)) // cfg.batch_size == int(batches)


def test_part_3_adds_a_model(typed):
    for dataset in options("dataset"):
        cfg = composed_in(typed.config, "config", ["model=shallow", f"dataset={dataset}"])
        facts = cfg.dataset
        images = torch.zeros(2, facts.in_channels, facts.image_size, facts.image_size)
        assert build(cfg, "model")(images).shape == (2, facts.num_classes)
        assert type(build(cfg, "model")) is models.Shallow


def test_a_dataset_of_a_class_of_your_own(typed, tmp_path):
    facts = composed_in(typed.config, "config", ["dataset=shapes"]).dataset
    shape = (facts.image_size, facts.image_size)
    arrays = {}
    for part, count in (("train", 8), ("test", 4)):
        arrays[f"{part}_images"] = numpy.arange(count)[:, None, None] + numpy.zeros(
            (1, *shape), int
        )
        arrays[f"{part}_labels"] = numpy.arange(count) % facts.num_classes
    numpy.savez(tmp_path / facts.source.file, **arrays)
    source = instantiate(facts.source, _partial_=True)
    train_set, test_set, _ = sources.load(source, tmp_path, facts)
    assert train_set.images.shape == (8, 1, *shape) and train_set.images.dtype == torch.uint8
    assert test_set.labels.tolist() == [0, 1, 0, 1]
    assert test_set.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_a_dataset_of_torchvision(typed):
    cfg = composed_in(typed.config, "config", ["dataset=stl10", "model=cnn"])
    assert instantiate(cfg.dataset.source, _partial_=True).func.__name__ == "STL10"
    assert build(cfg, "model")(torch.zeros(2, 3, 96, 96)).shape == (2, 10)


def test_a_run_with_a_module_of_your_own_can_be_resumed(tmp_path, monkeypatch):
    path, target = "mine/net.py", "mine.net.Net"
    assert {path, f"_target_: {target}"} <= set(inline_code())
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text("class Net:\n    pass\n")
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    assert trust.is_allowed(target)


@pytest.mark.slow
def test_a_run_folder_and_its_use_from_python(typed, script, tmp_path, monkeypatch, capfd):
    assert script("dataset=digits", "debug=smoke") == 0
    (path,) = tmp_path.glob("runs/**/result.json")
    listed = re.findall(
        r"^[├└]── ([\w.]+)", "".join(page.read_text() for page in DOCS), re.MULTILINE
    )
    assert {name for name in os.listdir(path.parent) if name != ".lock"} == set(listed)
    capfd.readouterr()
    runpy.run_path(str(typed.root / "train_digits.py"), run_name="__main__")
    said, found = map(float, capfd.readouterr().out.split()[-2:])
    assert said == found > 0.5
