"""The layout of the project: the imports, locations and lengths of its files."""

import ast
import os
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import PROJECT

# What each top-level module or package may import from the project.
# A project that grows from this one may well be larger.
ours = pytest.mark.skipif(not os.environ.get("CI"), reason="limits of this project's own CI")

ALLOWED = {
    "lab": set(),
    "sweeps": {"lab"},
    "models": {"lab"},
    "data": {"lab"},
    "sources": {"data", "lab"},
    "training": {"data", "lab"},
    "script": {"training", "sources", "data", "sweeps", "lab"},
    "evaluate": {"training", "sources", "data", "lab"},
    "results": {"sweeps", "lab"},
    "hydra_plugins": {"sweeps", "lab"},
}
FILES = {
    name: sorted((PROJECT / name).glob("*.py")) or [PROJECT / f"{name}.py"] for name in ALLOWED
}
EVERY_FILE = [(name, path) for name, paths in FILES.items() for path in paths]


def imported(path: Path) -> set[str]:
    """Return the full names of all imports in a file, at any level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(("name", "path"), EVERY_FILE, ids=lambda value: getattr(value, "stem", ""))
def test_imports_point_in_one_direction(name, path):
    tops = {full.partition(".")[0] for full in imported(path)}
    assert (tops & ALLOWED.keys()) - {name} <= ALLOWED[name]
    plugins = {path.stem for path in FILES["hydra_plugins"]}
    assert not plugins & {full.split(".")[1] for full in imported(path) if "hydra_plugins." in full}


@pytest.mark.parametrize("package", ["lab", "sweeps"])
def test_packages_have_no_import_cycles(package):
    modules = {path.stem for path in FILES[package]} - {"__init__"}
    graph = {
        path.stem: {
            part for full in imported(path) if full.startswith(f"{package}.")
            for part in full.split(".")[1:2] if part in modules
        }
        for path in FILES[package] if path.stem in modules
    }  # fmt: skip
    assert set(TopologicalSorter(graph).static_order()) == modules  # raises CycleError


@ours
def test_the_top_level_contains_only_the_experiment():
    top = {path.stem for path in PROJECT.glob("*.py")}
    assert top == {"script", "training", "data", "models", "sources", "evaluate", "results"}
    assert {path.suffix for path in (PROJECT / "config").rglob("*.*")} == {".yaml"}


@ours
def test_the_files_that_students_read_stay_short():
    limits = {"script": 110, "training": 100, "data": 220, "models": 220}
    lengths = {name: len(FILES[name][0].read_text().splitlines()) for name in limits}
    assert all(lengths[name] <= limits[name] for name in limits), lengths
    assert sum(lengths.values()) <= 620, lengths


@ours
@pytest.mark.parametrize(("name", "path"), EVERY_FILE, ids=lambda value: getattr(value, "stem", ""))
def test_files_stay_short(name, path):
    assert len(path.read_text().splitlines()) <= 250


def test_test_files_are_named_after_modules():
    folders = {"": ".", "lab": "lab", "sweeps": "sweeps", "plugins": "hydra_plugins"}
    exceptions = {"test_real", "test_layout", "test_docs", "test_config", "test_resume"}
    exceptions |= {"test_environment", "test_kills", "test_fuzz", "test_real_trackers"}
    for folder, package in folders.items():
        for path in (PROJECT / "tests" / folder).glob("test_*.py"):
            module = PROJECT / package / f"{path.stem.removeprefix('test_')}.py"
            assert path.stem in exceptions or module.exists(), path
