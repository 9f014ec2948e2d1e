"""Searches with Optuna and Ax, of a function with a known optimum and of script.py."""

import csv
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, half_slow, start

needs = {
    name: pytest.mark.skipif(
        not importlib.util.find_spec(name),
        reason=f"{name} is missing: pip install -r env/requirements-search.txt",
    )
    for name in ("optuna", "ax")
}
slow = pytest.mark.slow
BOTH = [  # Ax takes ten times as long
    pytest.param("optuna", marks=needs["optuna"]), pytest.param("ax", marks=[needs["ax"], slow])
]  # fmt: skip
SPACE = ("x=interval(0,1)", "rate=tag(log,interval(1e-4,1))")
SEARCH = (
    "-m", "name=mine", "hydra/sweeper=optuna", "model=linear", "limit=128", "batch_size=64",
    "optimizer.lr=tag(log,interval(1e-6,1e-1))",
)  # fmt: skip


@pytest.fixture
def search(call, monkeypatch):
    """Search the function in `function.py`, with the results in the folder `found`."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    return partial(call, "tests/plugins/function.py", "-m", "hydra.sweep.dir=found")


def table(folder: Path) -> list[dict]:
    """Read trials.csv, sorted by trial number."""
    with (folder / "trials.csv").open() as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["trial"]))


def best_value(folder: Path) -> float:
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    return next(iter(found["best"][0]["values"].values()))


def trials(count: int) -> str:
    return f"hydra.sweeper.n_trials={count}"


@pytest.mark.parametrize("backend", BOTH)
def test_repeating_the_command_adds_trials_up_to_the_total(search, tmp_path, capfd, backend):
    command = (f"hydra/sweeper={backend}", *SPACE, "count=range(0,3)", "word=good,fine")
    numbers = ("other=choice(1,2)", "half=choice(1,0.5)")
    kinds = (*numbers, "step=range(0,1,0.25)", "sizes=choice([8],[8,8])", "+new=int(interval(1,3))")
    assert search(*command, *kinds, trials(3)) == 0, capfd.readouterr()
    first = table(tmp_path / "found")
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("trial ")]
    for row, begins, ends in zip(first, lines[::2], lines[1::2], strict=True):
        assert (
            begins.startswith(f"trial {row['trial']} of 3: x=") and f"word={row['word']}" in begins
        )
        assert ends.startswith(f"trial {row['trial']}: ")
        assert begins.partition(": ")[2] in ends
    assert search(*command, *kinds, trials(5)) == 0
    repeated = table(tmp_path / "found")
    same = [{**row, "status": ""} for row in repeated[:3]]
    assert same == [{**row, "status": ""} for row in first]
    assert [row["trial"] for row in repeated] == ["0", "1", "2", "3", "4"]
    assert len({row["x"] + row["rate"] for row in repeated}) == 5
    for row in repeated:
        assert float(row["step"]) in (0, 0.25, 0.5, 0.75) and row["count"] in ("0", "1", "2")
        assert row["other"] in ("1", "2") and row["half"] in ("1", "0.5")
        assert row["sizes"] in ("[8]", "[8,8]") and row["'+new"] in ("1", "2", "3")
    for name in ("history", "parallel", "importance"):
        assert (tmp_path / f"found/{name}.png").read_bytes().startswith(b"\x89PNG")
    capfd.readouterr()
    assert search(*command, *kinds, trials(5)) == 0
    assert "HYDRA" not in capfd.readouterr().out  # nothing is launched


@slow
@pytest.mark.parametrize("backend", BOTH)
def test_trials_that_raise_or_return_nan_count_as_failed(search, tmp_path, capfd, backend):
    command = (f"hydra/sweeper={backend}", "word=choice(good,bad,nan)", "x=interval(0,1)")
    assert search(*command, trials(8), "hydra.sweeper.max_failure_rate=1") == 0
    rows = table(tmp_path / "found")
    assert len(rows) == 8 and {row["word"] for row in rows} == {"good", "bad", "nan"}
    assert all((row["status"] == "failed") == (row["word"] != "good") for row in rows)


@slow
@needs["optuna"]
def test_too_many_failed_trials_end_the_search(search, tmp_path, capfd):
    command = ("hydra/sweeper=optuna", "x=interval(0,1)", "word=bad", trials(6))
    assert search(*command) == 1
    output = capfd.readouterr().out
    assert "4 of 4 trials failed" in output
    assert "correct the cause and give the search another name" in output
    assert search(*command, "hydra.sweeper.max_failure_rate=1") == 1
    output = capfd.readouterr().out
    assert "No trial finished." in output and len(table(tmp_path / "found")) == 6


@slow
@pytest.mark.parametrize("backend", BOTH)
def test_several_objectives_give_the_pareto_front(search, tmp_path, capfd, backend):
    objectives = (
        "hydra.sweeper.objectives=[value,x]",
        "hydra.sweeper.directions=[maximize,minimize]",
    )
    assert search(f"hydra/sweeper={backend}", *SPACE, "both=true", *objectives, trials(7)) == 0
    found = yaml.safe_load((tmp_path / "found/optimization_results.yaml").read_text())
    front = {entry["trial"] for entry in found["best"]}
    points = {
        int(row["trial"]): (float(row["value"]), -float(row["x"]))
        for row in table(tmp_path / "found")
    }
    for number, point in points.items():
        others = [other for other in points.values() if other != point]
        dominated = any(all(a >= b for a, b in zip(o, point, strict=True)) for o in others)
        assert dominated == (number not in front)
    assert (tmp_path / "found/pareto.png").exists()
    assert "Pareto front" in capfd.readouterr().out


@slow
@needs["optuna"]
def test_trials_can_be_stored_in_a_database(search, tmp_path):
    storage = f"hydra.sweeper.storage=sqlite:///{tmp_path}/trials.db"
    command = ("hydra/sweeper=optuna", "x=interval(0,1)", storage)
    assert search(*command, trials(2)) == 0 and search(*command, trials(3)) == 0
    assert len(table(tmp_path / "found")) == 3
    assert not (tmp_path / "found/search.journal").exists()


@slow
@needs["optuna"]
@pytest.mark.parametrize(
    "sampler",
    ["random", "tpe", "gp", "nsga2"],
)
def test_every_sampler_is_reproducible(search, tmp_path, sampler):
    command = ("hydra/sweeper=optuna", f"hydra/sweeper/sampler={sampler}", *SPACE)
    assert search(*command, trials(4)) == 0
    first = table(tmp_path / "found")
    (tmp_path / "found").rename(tmp_path / "before")
    assert search(*command, trials(2)) == 0 and search(*command, trials(4)) == 0
    assert [row["x"] for row in table(tmp_path / "found")] == [row["x"] for row in first]


@pytest.mark.parametrize("backend", ["optuna", "ax"])
def test_a_missing_package_is_named(script, tmp_path, monkeypatch, capfd, backend):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert script("-m", f"hydra/sweeper={backend}", "optimizer.lr=interval(0,1)") == 1
    assert "pip install -r env/requirements-search.txt" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_importing_the_script_loads_neither_search_library_nor_torch():
    code = "import sys, hydra_plugins.search_sweeper as _, script; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True)
    assert not {"optuna", "ax", "torch"} & set(loaded.split())


@needs["optuna"]
@pytest.mark.parametrize(
    ("overrides", "reason"),
    half_slow(
        [
            (["hydra.sweeper.n_trials=0"], "at least 1"),
            (["hydra.sweeper.seed=a"], "whole number"),
            (["hydra.sweeper.max_failure_rate=2"], "from 0 to 1"),
            (["hydra.sweeper.directions=[up]"], "maximize or minimize"),
            (["hydra.sweeper.objectives=[test_accuracy]"], "test images"),
            (["hydra/sweeper/sampler=tpee"], "Did you mean tpe?"),
            (["hydra/sweeper/pruner=median", "hydra.sweeper.objectives=[seconds]"], "every epoch"),
            (["fail_fast=true"], "max_failure_rate=0"),
            (["optimizer.lrr=interval(0,1)"], "Did you mean lr?"),
            (["model=linear,mpl"], "Did you mean mlp?"),
            (["epochs=interval(1,3)"], "whole number"),
            (["optimizer.lr=0.1"], "nothing to search"),
            (["name=../elsewhere"], "name=../elsewhere is not allowed"),
            (["sweep=optuna_mlp"], "is chosen twice"),
            (["sweep=ax_mlp"], "conflicts with a recipe that searches with ax"),
            (
                ["hydra.sweeper.storage=nosuch://x"],
                "storage=nosuch://x cannot be used (NoSuchModule",
            ),
            (["hydra.sweeper.storage=x.db"], "give a URL that SQLAlchemy understands"),
            (["hydra.sweeper.storage=sqlite:////nowhere/x.db"], "unable to open database file"),
            (["hydra.sweeper.storage=5"], "storage=5 is not allowed: it must be text"),
            (["hydra.sweeper.study=[a]"], "study=['a'] is not allowed: it must be text"),
            (["hydra.sweeper.objectives=5"], "objectives=5 is not allowed: it must be a list"),
            (
                ["hydra.sweeper.directions=null"],
                "directions=None is not allowed: it must be a list",
            ),
            (["hydra.sweeper.max_failure_rate=true"], "not a share from 0 to 1"),
            (["hydra.sweeper.backend=nope"], "backend=nope is not allowed: use one of optuna, ax"),
            (["hydra.sweeper.params=5"], "hydra.sweeper.params=5 is not allowed"),
            (["hydra.sweeper.sampler=null"], "choose one with hydra/sweeper/sampler=NAME"),
            (["hydra.sweeper.sampler._target_=optuna.samplers.Tpe"], "optuna.samplers has no Tpe"),
            (
                ["+hydra.sweeper.sampler.x=1"],
                "hydra.sweeper.sampler.x is not an argument of optuna",
            ),
            (
                ["hydra/sweeper/pruner=median", "+hydra.sweeper.pruner.x=1"],
                "hydra.sweeper.pruner.x is not an argument of optuna.pruners.MedianPruner",
            ),
        ]
    ),
)
def test_invalid_searches_are_refused_before_any_trial(script, tmp_path, capfd, overrides, reason):
    assert script("-m", "hydra/sweeper=optuna", "optimizer.lr=interval(0,1)", *overrides) == 1
    assert reason in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/**/trial=*"))


@needs["optuna"]
def test_a_damaged_trial_folder_counts_as_one_failed_trial(script, tmp_path, capfd):
    folder = tmp_path / "runs/mine/trial=0"
    folder.mkdir(parents=True)
    for name in ("result.json", "config.yaml"):
        (folder / name).write_text("[")
    assert script(*SEARCH, "epochs=1", trials(2)) == 0, capfd.readouterr()
    assert [row["status"] for row in table(tmp_path / "runs/mine")] == ["failed", "best"]


@needs["optuna"]
def test_another_search_with_the_same_name_is_refused(search, capfd):
    assert search("hydra/sweeper=optuna", "x=interval(0,1)", trials(1)) == 0
    assert search("hydra/sweeper=optuna", "x=interval(0,2)", trials(2)) == 1
    error = capfd.readouterr().err
    assert "x from 0.0 to 1.0 where this one has x from 0.0 to 2.0" in error


@needs["optuna"]
def test_a_search_and_a_grid_do_not_share_a_folder(script, capfd):
    quick = ("dataset=digits", "model=linear", "debug=smoke")
    lr = "optimizer.lr=interval(0.1,0.2)"
    assert script("-m", "name=searched", "hydra/sweeper=optuna", *quick, lr, trials(1)) == 0
    assert script("-m", "name=searched", *quick, "seed=0,1") == 1
    assert "runs/searched holds a search, not a grid: use another name=." in capfd.readouterr().err
    assert script("-m", "name=grid", *quick, "seed=0") == 0
    assert script("-m", "name=grid", "hydra/sweeper=optuna", *quick, lr, trials(1)) == 1
    assert "runs/grid holds a grid, not a search: use another name=." in capfd.readouterr().err


@slow
@needs["optuna"]
@pytest.mark.parametrize(
    ("pruner", "setting"),
    [("median", "n_startup_trials=2"), ("hyperband", "max_resource=6")],
)
def test_a_pruned_trial_ends_early_and_stays_pruned(script, tmp_path, capfd, pruner, setting):
    chosen = (f"hydra/sweeper/pruner={pruner}", f"hydra.sweeper.pruner.{setting}")
    assert script(*SEARCH, "epochs=6", *chosen, trials(6)) == 0, capfd.readouterr()
    rows = table(tmp_path / "runs/mine")
    pruned = [row for row in rows if row["status"] == "pruned"]
    assert pruned and len(pruned) < 6
    for row in rows:
        with (tmp_path / f"runs/mine/trial={row['trial']}/metrics.csv").open() as file:
            epochs = len(list(csv.DictReader(file)))
        assert (epochs < 6) == (row["status"] == "pruned") and row["epochs"] == str(epochs)
    folder = tmp_path / f"runs/mine/trial={pruned[0]['trial']}"
    before = json.loads((folder / "result.json").read_text())
    assert before["status"] == "pruned"
    assert "test_accuracy" not in before
    assert script(f"resume={folder}") == 0
    assert "trial=null continues it" in capfd.readouterr().out
    assert json.loads((folder / "result.json").read_text()) == before
    assert script(f"resume={folder}", "trial=null") == 0
    assert json.loads((folder / "result.json").read_text())["epochs"] == 6


@slow
@needs["optuna"]
def test_the_command_of_the_best_trial_reproduces_it(script, tmp_path, capfd):
    import shlex

    assert script(*SEARCH, "epochs=2", trials(2)) == 0
    found = yaml.safe_load((tmp_path / "runs/mine/optimization_results.yaml").read_text())
    _, _, *overrides = shlex.split(found["best"][0]["command"])
    assert script(*overrides, "hydra.run.dir=again") == 0
    repeated = json.loads((tmp_path / "again/result.json").read_text())
    assert repeated["val_accuracy"] == found["best"][0]["values"]["val_accuracy"]


@needs["optuna"]
@slow
def test_the_command_of_the_best_trial_of_a_recipe_is_a_single_run(script, tmp_path, capfd):
    import shlex

    small = ("limit=128", "epochs=1", "data_dir=a=b (1)", "name=it's", trials(1))
    (tmp_path / "a=b (1)").symlink_to(os.environ["DATA_DIR"])
    assert script("-m", "sweep=optuna_mlp", *small) == 0
    found = yaml.safe_load((tmp_path / "runs/it's/optimization_results.yaml").read_text())
    printed = found["best"][0]["command"]
    assert f"    {printed}\n" in capfd.readouterr().out
    _, _, *overrides = shlex.split(printed)
    assert "dataset=fashion" in overrides and "data_dir='a=b (1)'" in overrides
    assert script(*overrides, "hydra.run.dir=again") == 0
    repeated = json.loads((tmp_path / "again/result.json").read_text())
    assert repeated["val_accuracy"] == found["best"][0]["values"]["val_accuracy"]


@needs["optuna"]
@slow
def test_an_interrupted_search_says_how_to_resume_the_search(script, tmp_path, monkeypatch, capfd):
    import shlex
    import signal

    import sources

    search = [word for word in SEARCH if word != "name=mine"]
    with monkeypatch.context() as patch:
        patch.setattr(sources, "load", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert script(*search, "epochs=1", trials(1)) == 130
    (folder,) = tmp_path.glob("runs/*/*_sweep")
    output = capfd.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("Resume with: ")]
    words = shlex.split(line)[4:]
    name = folder.relative_to(tmp_path / "runs")
    assert words == [*search, "epochs=1", trials(1), f"name={name}"]
    assert script(*words) == 0
    assert [row["trial"] for row in table(folder)] == ["0"]


@needs["optuna"]
def test_an_unknown_objective_is_refused(script, capfd):
    assert script(*SEARCH, "epochs=1", "hydra.sweeper.objectives=[val_acuracy]", trials(1)) == 1
    assert "Did you mean val_accuracy?" in capfd.readouterr().err


@slow
@needs["optuna"]
@pytest.mark.parametrize("moment", range(2))
def test_a_killed_search_resumes_to_the_same_result(tmp_path, data_dir, monkeypatch, moment):
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    command = (*SEARCH, "epochs=8", "hydra/sweeper/pruner=median", trials(9))
    (tmp_path / "undisturbed").mkdir()
    assert start(tmp_path / "undisturbed", *command).wait() == 0
    process = start(tmp_path, *command)
    while not list(tmp_path.glob("runs/mine/trial=*")):
        time.sleep(0.01)
    time.sleep(random.Random(moment).uniform(0, 8))
    process.kill()
    process.wait()
    assert start(tmp_path, *command).wait() == 0
    assert table(tmp_path / "runs/mine") == table(tmp_path / "undisturbed/runs/mine")


def start_search(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "tests/plugins/function.py"), "-m", *SPACE, *arguments],
        cwd=folder, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )  # fmt: skip


def kill_and_repeat(folder: Path, command: tuple[str, ...], moments: list[float]) -> None:
    """Kill the command once per moment, in seconds after a trial starts; then let it finish."""
    for seconds in moments:
        before = len(list(folder.glob("found/trial=*")))
        process = start_search(folder, *command)
        while len(list(folder.glob("found/trial=*"))) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        process.wait()
    assert start_search(folder, *command).wait() == 0


@slow
@needs["optuna"]
def test_a_repeatedly_killed_optuna_search_resumes_to_the_same_result(tmp_path):
    command = ("hydra/sweeper=optuna", "hydra.sweep.dir=found", trials(25))
    (tmp_path / "undisturbed").mkdir()
    assert start_search(tmp_path / "undisturbed", *command).wait() == 0
    moments = [random.Random(kill).uniform(0, 0.3) for kill in range(3)]
    kill_and_repeat(tmp_path, command, moments)
    assert table(tmp_path / "found") == table(tmp_path / "undisturbed/found")


@slow
@needs["ax"]
def test_a_repeatedly_killed_ax_search_neither_loses_nor_repeats_trials(tmp_path):
    command = ("hydra/sweeper=ax", "hydra.sweep.dir=found", trials(9))
    moments = [random.Random(kill).uniform(0, 3) for kill in range(3)]
    kill_and_repeat(tmp_path, command, moments)
    rows = table(tmp_path / "found")
    assert [row["trial"] for row in rows] == [str(number) for number in range(9)]
    assert len({row["x"] + row["rate"] for row in rows}) == 9


@slow
@pytest.mark.parametrize("choice", [
    pytest.param("hydra/sweeper/pruner=median", marks=needs["optuna"], id="optuna"),
    pytest.param("hydra/sweeper=ax", marks=needs["ax"], id="ax"),
])  # fmt: skip
def test_a_parallel_search_waits_for_trials_of_a_killed_command(
    tmp_path, data_dir, monkeypatch, choice
):
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    local = ("hydra/launcher=local", "hydra.sweeper.parallel=2")
    command = (*SEARCH, "epochs=4", *local, choice, trials(4))
    process = start(tmp_path, *command)
    while not list(tmp_path.glob("runs/mine/trial=*/last.pt")):
        time.sleep(0.01)
    process.kill()  # its two jobs keep running, and the next command waits for them
    process.wait()
    process = start(tmp_path, *command)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    for number in (2, 3):  # two at a time: both are announced before the first of them ends
        assert output.count(f"trial {number} of 4: optimizer.lr=") == 1
    assert output.index("trial 3 of 4") < output.index("trial 2: ")
    rows = table(tmp_path / "runs/mine")
    assert len(rows) == 4 and not any(row["status"] in ("failed", "running") for row in rows)


@slow
@pytest.mark.parametrize(("backend", "count"), [
    pytest.param("optuna", 40, marks=needs["optuna"]), pytest.param("ax", 20, marks=needs["ax"]),
])  # fmt: skip
def test_a_search_finds_the_optimum_and_beats_random_search(search, tmp_path, backend, count):
    random_search = {
        "optuna": "hydra/sweeper/sampler=random",
        "ax": "hydra.sweeper.method=random_search",
    }
    found: dict[str, list[float]] = {"model": [], "random": []}
    for seed in range(10):
        for method, overrides in (("model", []), ("random", [random_search[backend]])):
            folder = f"{method}{seed}"
            seeded = (f"hydra.sweeper.seed={seed}", f"hydra.sweep.dir={folder}", trials(count))
            assert search(f"hydra/sweeper={backend}", *SPACE, *seeded, *overrides) == 0
            found[method].append(best_value(tmp_path / folder))
    assert statistics.median(found["model"]) > -0.01, found
    assert statistics.mean(found["model"]) > statistics.mean(found["random"]), found


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("optuna", marks=needs["optuna"]),
        pytest.param("ax", marks=[needs["ax"], slow]),
    ],
)
def test_a_search_writes_nothing_through_links(search, tmp_path, backend):
    outside, found = tmp_path / "outside", tmp_path / "found"
    outside.write_text("untouched")
    command = (f"hydra/sweeper={backend}", "x=interval(0,1)", "rate=interval(0.1,1)")
    assert search(*command, trials(1)) == 0
    kept = ("search.journal", "search.ax.json", "search.json")
    written = [path for path in found.iterdir() if path.is_file() and path.name not in kept]
    written = [path for path in written if path.suffix != ".lock"]
    assert len(written) > 4
    for path in written:
        path.unlink()
        path.symlink_to(outside)
    assert search(*command, trials(2)) == 1
    assert outside.read_text() == "untouched"


@needs["optuna"]
def test_a_search_continues_after_half_a_record(search, tmp_path, capfd):
    command = ("hydra/sweeper=optuna", *SPACE)
    assert search(*command, trials(3)) == 0
    before = table(tmp_path / "found")
    journal = tmp_path / "found/search.journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    capfd.readouterr()
    assert search(*command, trials(3)) == 0
    assert "found/search.journal: the last record was cut off after" in capfd.readouterr().out
    assert table(tmp_path / "found") == before
    journal.write_bytes(journal.read_bytes().replace(b"{", b"", 1))
    assert search(*command, trials(3)) == 1
    error = capfd.readouterr().err
    assert f"{journal} is damaged in line 1 of" in error and "Traceback" not in error


@slow
@needs["optuna"]
def test_a_search_that_was_killed_between_two_parameters_proposes_the_same(search, tmp_path):
    command = ("hydra/sweeper=optuna", *SPACE, "count=range(0,9)", "word=good,fine", trials(3))
    assert search(*command) == 0
    before, journal = table(tmp_path / "found"), tmp_path / "found/search.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    set_by = [n for n, line in enumerate(lines) if b'"op_code":5' in line]
    assert len(set_by) == 12  # a record for each of four parameters of three trials
    for number in (1, 4, 6, 11):
        journal.write_bytes(b"".join(lines[: set_by[number]]))
        assert search(*command) == 0
        assert table(tmp_path / "found") == before, number


@slow
@needs["ax"]
@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{}", '{"a": ' * 30 + "1" + "}" * 30, '{"__type": "os.system", "value": "id"}'],
)
def test_a_file_that_ax_has_not_written_is_refused(search, tmp_path, capfd, content):
    command = ("hydra/sweeper=ax", "x=interval(0,1)", trials(1))
    (tmp_path / "found").mkdir()
    (tmp_path / "found/search.ax.json").write_text(content)
    assert search(*command) == 1
    assert "search.ax.json is damaged: " in capfd.readouterr().err
