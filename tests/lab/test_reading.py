"""Run and sweep folders from strangers, through every command that reads one.

Each attack changes a folder. A command ends it with a sentence, or works; it never hangs, never
shows a traceback, and never changes anything outside.
"""

import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import yaml
from conftest import PROJECT, apart

pytestmark = pytest.mark.xdist_group("strangers")  # the tests share a sweep, run by one worker

DEADLINE = 20  # seconds for a command, on a machine that is busy; most take a quarter of one
SWEEP = ("-m", "name=stranger", "dataset=digits", "model=linear", "debug=smoke", "seed=0,1")
ESCAPE = "\x1b]0;title\x07\x1b[31m"
# What any command may write into a sweep folder.
OURS = re.compile(r"results\.(csv|md|png|html)|multirun\.yaml|\.sweep")


@pytest.fixture(scope="module")
def original(tmp_path_factory, data_dir) -> Path:
    """A sweep of two jobs: one is finished, the other was interrupted after its last epoch."""
    folder = tmp_path_factory.mktemp("original")
    with apart(folder, data_dir) as call:
        assert call("script.py", *SWEEP) == 0
    sweep = folder / "runs/stranger"
    for name in ("results.csv", "results.md", "results.png", "results.html", "multirun.yaml"):
        (sweep / name).unlink()
    set_result(job_of(sweep), status="interrupted")
    return sweep


@pytest.fixture
def sweep(original, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy that a test may attack, in a world that must stay as it is."""
    home, canary = tmp_path / "home", tmp_path / "canary"
    for folder in (home, canary):
        folder.mkdir()
        (folder / ".bashrc").write_text("alias ls=ls\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SECRET", "the secret")
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [])
    yield Path(shutil.copytree(original, tmp_path / "runs/stranger"))
    # pytest itself, which removes old folders, fails on very deep ones.
    subprocess.run(["rm", "-rf", tmp_path / "runs"], check=True)


def job_of(sweep: Path) -> Path:
    (job,) = sweep.glob("seed=1-*")
    return job


def contents(folder: Path) -> dict[str, object]:
    """Every path below the folder, with what it is and what it holds."""
    found: dict[str, object] = {}
    left = [folder]
    while left:
        for at in left.pop().iterdir():
            key = os.fsencode(at.relative_to(folder)).decode(errors="replace")
            status = at.lstat()
            if at.is_symlink():
                found[key] = os.readlink(at)
            elif at.is_file():
                small = status.st_size < 2**22  # others are sparse
                found[key] = at.read_bytes() if small else status.st_size
            else:
                found[key] = status.st_mode
                left += [at] if at.is_dir() and len(at.parts) < 40 else []
    return found


# How a stranger changes a folder.


def set_config(job: Path, **changes: object) -> None:
    """Set values of `config.yaml`; `model__width` is the key model.width."""
    config = yaml.safe_load((job / "config.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = config
        for part in parents:
            node = node[part]
        node[last] = value
    (job / "config.yaml").write_text(yaml.dump(config))


def append(job: Path, text: str) -> None:
    with (job / "config.yaml").open("a", encoding="utf-8") as file:
        file.write(text)


def set_result(job: Path, **changes: object) -> None:
    result = json.loads((job / "result.json").read_text()) | changes
    (job / "result.json").write_text(json.dumps(result))


def removed(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def link(path: Path, target: str | Path = "../../../canary/.bashrc") -> None:
    removed(path).symlink_to(target)


def pipe(path: Path) -> None:
    os.mkfifo(removed(path))


def folder(path: Path) -> None:
    removed(path).mkdir()


def bind(path: Path) -> None:
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(removed(path).parent)  # the path of a socket is short
        listener.bind(path.name)
        os.chdir(here)


def sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def nested(path: Path, depth: int) -> None:
    here = os.getcwd()
    os.chdir(path)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch ../../canary/bomb",)


def repeated(depth: int) -> list:
    """A list of lists that is short in a file, and has 10 ** depth items."""
    node: list = [0]
    for _ in range(depth):
        node = [node] * 10
    return node


def set_checkpoint(job: Path, **changes: object) -> None:
    for name in ("last.pt", "best.pt"):
        torch.save(torch.load(job / name) | changes, job / name)


def overlap(job: Path) -> None:
    """Checkpoints whose records are a thousand times as large together as the file."""
    for name in ("last.pt", "best.pt"):
        with zipfile.ZipFile(job / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(100):
                archive.writestr(f"archive/data/{number}", bytes(10**6))


def named(job: Path, name: str) -> None:
    """Give the folder of the job another name, with the digest of its config."""
    job.rename(job.with_name(f"{name}-{job.name.rpartition('-')[2]}"))


def target(**node: object) -> dict[str, object]:
    return {"_target_": node.pop("of"), **node}


CANARY = "/tmp/canary-of-strangers"
DOWNLOAD = target(of="torchvision.datasets.MNIST", root=CANARY, download=True)
REFERENCES = {f"r{n}": f"${{model.r.r{n + 1}}}" * 10 for n in range(12)} | {"r12": "x" * 100}
NODES = {f"n{n}": {"a": f"${{model.n{n + 1}}}", "b": f"${{model.n{n + 1}}}"} for n in range(40)}
FILES = ("config.yaml", "result.json", "last.pt", "best.pt", "metrics.csv", "script.log", ".lock")
MUST_NOT = "which a run folder must not"
DAMAGED = "is damaged"

# Name: (attack on the interrupted job, sentence of resume= and evaluate.py, whether the table lists
# the job as damaged). None for a sentence where the folder is none, and the commands work.
ATTACKS: dict[str, tuple[Callable[[Path], object], str | None, bool]] = {
    # What a file must not be
    **{f"pipe {n}": (lambda j, n=n: pipe(j / n), "is a named pipe", True) for n in FILES},
    **{f"link {n}": (lambda j, n=n: link(j / n), "is a link", True) for n in FILES},
    **{f"folder {n}": (lambda j, n=n: folder(j / n), "must be a file", True) for n in FILES},
    "socket result.json": (lambda j: bind(j / "result.json"), "is a socket", True),
    "socket .lock": (lambda j: bind(j / ".lock"), "is a socket", True),
    "endless config": (lambda j: link(j / "config.yaml", "/dev/zero"), "is a link", True),
    "endless last.pt": (lambda j: link(j / "last.pt", "/dev/zero"), "is a link", True),
    "pipe partial": (lambda j: pipe(j / ".result.json.partial"), "is a named pipe", True),
    "link partial": (lambda j: link(j / ".result.json.partial"), "is a link", True),
    "link of any name": (lambda j: link(j / "notes"), "is a link", True),
    "link to nothing": (lambda j: link(j / "best.pt", "/nowhere"), "is a link", True),
    ".hydra link": (lambda j: link(j / ".hydra", "../../../canary"), "is a link", True),
    ".hydra file": (
        lambda j: removed(j / ".hydra").write_text(""),
        "is a file, but must be a folder",
        True,
    ),
    ".hydra/config.yaml link": (lambda j: link(j / ".hydra/config.yaml"), "is a link", True),
    ".hydra/hydra.yaml pipe": (lambda j: pipe(j / ".hydra/hydra.yaml"), "is a named pipe", True),
    # Sizes
    "large config": (lambda j: sparse(j / "config.yaml", 10**8), "it has 100000000 bytes", True),
    "large result": (lambda j: sparse(j / "result.json", 10**8), "it has 100000000 bytes", True),
    "huge last.pt": (lambda j: sparse(j / "last.pt", 2**43), "read as a checkpoint", False),
    "huge best.pt": (lambda j: sparse(j / "best.pt", 2**43), "read as a checkpoint", False),
    "deep folders": (lambda j: nested(j, 1500), None, True),  # in a line of its own
    "deep json": (lambda j: (j / "result.json").write_text("[" * 10**5), "read as JSON", True),
    "deep values": (lambda j: set_result(j, note=json.loads("[" * 99 + "]" * 99)), "levels", True),
    "deep yaml": (lambda j: append(j, "x: " + "[" * 10**4), "read as YAML", True),
    "many values": (lambda j: append(j, f"x: [{'1,' * 10**5}]"), "more values than", True),
    "many digits": (lambda j: set_result(j, parameters=10**400), "parameters=", True),
    "more digits": (lambda j: append(j, f"x: {'9' * 5000}"), "read as YAML", True),
    "long text": (lambda j: set_config(j, model__x="x" * 10**5), "too long", False),
    # YAML that is more than data
    "aliases": (
        lambda j: append(j, "x: &a [1]\n" + "".join(f"x{n}: [*a, *a]\n" for n in range(9))),
        "it has the alias a",
        True,
    ),
    "recursive alias": (lambda j: append(j, "x: &a [*a]"), "it has the alias a", True),
    "tag set": (lambda j: append(j, "x: !!set {a, b}"), "it has the tag", True),
    "tag binary": (lambda j: append(j, "x: !!binary aGk="), "it has the tag", True),
    "tag python": (
        lambda j: append(j, "x: !!python/object/apply:os.system [ls]"),
        "it has the tag",
        True,
    ),
    "tag path": (
        lambda j: append(j, "x: !!python/object/apply:pathlib.PosixPath [/]"),
        "it has the tag",
        True,
    ),
    "no text": (
        lambda j: (j / "config.yaml").write_bytes(b"\xff\xfe\0"),
        "is not text in UTF-8",
        True,
    ),
    "two documents": (lambda j: append(j, "---\na: 1\n"), "read as YAML", True),
    "list as a key": (lambda j: append(j, "? [a]\n: 1\n"), "read as YAML", True),
    "list": (lambda j: (j / "config.yaml").write_text("- 1"), "holds no keys", True),
    # Classes
    "nested class": (lambda j: set_config(j, model__in_channels=DOWNLOAD), MUST_NOT, False),
    "nested in a list": (lambda j: set_config(j, model__x=[[DOWNLOAD]]), MUST_NOT, False),
    "class in the dataset": (lambda j: set_config(j, dataset__mean=DOWNLOAD), MUST_NOT, False),
    "model that downloads": (lambda j: set_config(j, model=DOWNLOAD), MUST_NOT, False),
    "optimizer that downloads": (lambda j: set_config(j, optimizer=DOWNLOAD), MUST_NOT, False),
    "scheduler as a model": (
        lambda j: set_config(j, model=target(of="torch.optim.lr_scheduler.StepLR")),
        MUST_NOT,
        False,
    ),
    "class of its own in augmentation": (
        lambda j: set_config(j, augmentation=target(of="models.MLP")),
        MUST_NOT,
        False,
    ),
    "class by a list": (lambda j: set_config(j, model___target_=["os.system"]), MUST_NOT, False),
    "class by a reference": (
        lambda j: set_config(j, model___target_="${name}", name="os.system"),
        MUST_NOT,
        False,
    ),
    "class by a reference to a class": (
        lambda j: set_config(
            j,
            model__in_channels="${dataset.source}",
            dataset__source=target(of="torchvision.datasets.MNIST", root="made", download=True),
        ),
        MUST_NOT,
        False,
    ),
    "class in a dictionary": (
        lambda j: set_config(j, model__x={"_target_": {"_target_": "os.system"}}),
        MUST_NOT,
        False,
    ),
    "path by references": (
        lambda j: set_config(j, model__x=".${model.y}", model__y="./a"),
        MUST_NOT,
        False,
    ),
    "function": (lambda j: set_config(j, model___target_="os.system"), MUST_NOT, False),
    "unpickling dataset": (
        lambda j: set_config(j, dataset__source=target(of="torchvision.datasets.LSUNClass")),
        MUST_NOT,
        False,
    ),
    "dataset of any folder": (
        lambda j: set_config(j, dataset__source=target(of="torchvision.datasets.ImageFolder")),
        MUST_NOT,
        False,
    ),
    "class of lab": (
        lambda j: set_config(j, model___target_="lab.callbacks.Announce"),
        MUST_NOT,
        False,
    ),
    "callbacks": (
        lambda j: set_config(j, hydra={"callbacks": {"x": target(of="os.system")}}),
        "hydra is not a key",
        False,
    ),
    # Paths and resolvers
    "path of its own": (lambda j: set_config(j, dataset__source__root="/etc"), "a path", False),
    "path at home": (lambda j: set_config(j, dataset__source__folder="~/x"), "a path", False),
    "path upwards": (lambda j: set_config(j, dataset__source__folder="a/../../b"), "path", False),
    "path of Windows": (lambda j: set_config(j, dataset__source__folder="C:\\x"), "path", False),
    "data_dir upwards": (lambda j: set_config(j, data_dir="../../../canary"), MUST_NOT, False),
    "environment": (lambda j: set_config(j, name="${oc.env:SECRET}"), "a resolver", False),
    "escaped environment": (
        lambda j: set_config(j, name="\\\\${oc.env:SECRET}"),
        "a resolver",
        False,
    ),
    "escaped resolver": (
        lambda j: set_config(j, model__x="\\${oc.env:SECRET}"),
        "a resolver",
        False,
    ),
    "composed resolver": (
        lambda j: set_config(j, name="${oc.${model.x}:SECRET}", model__x="env"),
        "a resolver",
        False,
    ),
    "half a reference": (lambda j: set_config(j, name="${" * 9), "not a reference", False),
    "exponential text": (lambda j: set_config(j, model__r=REFERENCES), "references lead", False),
    "exponential values": (
        lambda j: set_config(j, **{f"model__{k}": v for k, v in NODES.items()}),
        "references lead",
        False,
    ),
    "circular references": (
        lambda j: set_config(j, model__a={"x": "${model.b}"}, model__b={"y": "${model.a}"}),
        "references lead",
        False,
    ),
    # Sizes that no machine has
    "large model": (
        lambda j: set_config(
            j,
            model=target(
                of="models.MLP",
                in_channels=1,
                image_size=8,
                num_classes=10,
                hidden_sizes=[10**12],
                dropout=0,
            ),
        ),
        "too large for this machine",
        False,
    ),
    "large images": (lambda j: set_config(j, dataset__image_size=10**6), "image_size=", False),
    "many classes": (lambda j: set_config(j, dataset__num_classes=10**9), "one name per", False),
    "no number": (lambda j: set_config(j, epochs="many"), "epochs=many", False),
    # Values of result.json
    "reason 5": (lambda j: set_result(j, reason=5), "reason=5 cannot be", True),
    "model in a list": (lambda j: set_result(j, model=[1]), "model=[1] cannot be", True),
    "dataset in a dictionary": (lambda j: set_result(j, dataset={}), "dataset={} cannot", True),
    "endless time": (lambda j: set_result(j, seconds=1.7e308), "seconds=1.7e+308", True),
    "time of a million digits": (lambda j: set_result(j, seconds=10**4000), "seconds=1", True),
    "figure": (lambda j: set_result(j, val_loss=10**300), "val_loss=1", True),
    "figure beyond floats": (lambda j: set_result(j, test_loss=10**400), "test_loss=1", True),
    "commit": (lambda j: set_result(j, commit=["a"]), "commit=", True),
    "overrides": (lambda j: set_result(j, overrides=[5]), "overrides=", True),
    "infinite accuracy": (lambda j: set_result(j, test_accuracy=1e999), "test_accuracy=", True),
    # Text that acts on what shows it
    "escapes in the class": (
        lambda j: set_config(j, model___target_=f"os{ESCAPE}"),
        r"os\x1b]0;title\x07",
        False,
    ),
    "escapes in a key": (lambda j: set_config(j, **{f"a{ESCAPE}": 1}), r"a\x1b]0;", False),
    "escapes in the reason": (
        lambda j: set_result(j, status="failed", reason=ESCAPE),
        None,
        False,
    ),
    "escapes in names": (lambda j: set_result(j, model=ESCAPE, optimizer="\u202egpj"), None, False),
    "half a character": (lambda j: set_result(j, model="\ud800", reason="\udcff"), None, False),
    "formulas": (lambda j: set_result(j, model="=cmd|' /C calc'!A0"), None, False),
    "mathematics": (lambda j: set_result(j, model=r"$\frac$"), None, False),
    "markup": (lambda j: set_result(j, model="<img src=x>[a](b)|"), None, False),
    # Checkpoints
    "pickle": (
        lambda j: [(j / n).write_bytes(pickle.dumps(Bomb())) for n in ("last.pt", "best.pt")],
        "cannot be read as a checkpoint",
        False,
    ),
    "pickle in a checkpoint": (
        lambda j: set_checkpoint(j, model=Bomb()),
        "cannot be read as a checkpoint",
        False,
    ),
    "shared lists": (
        lambda j: set_checkpoint(j, steps=repeated(12)),
        "cannot be read as a checkpoint",
        False,
    ),
    "shared and empty lists": (
        lambda j: set_checkpoint(j, seed=[[[[[]] * 999] * 999] * 999] * 999),
        "cannot be read as a checkpoint",
        False,
    ),
    "overlapping records": (overlap, "cannot be read as a checkpoint", False),
    "wrong model": (lambda j: set_checkpoint(j, model={}), "another model", False),
    # Names of folders
    "name with a resolver": (lambda j: named(j, "${oc.env:SECRET}"), None, False),
    "name with a quote": (lambda j: named(j, "it's"), None, False),
    "name with escapes": (lambda j: named(j, ESCAPE), None, False),
    "name with mathematics": (lambda j: named(j, r"$\frac$"), None, False),
    "name in no encoding": (lambda j: named(j, "\udcff\udcfe"), None, False),
}
COMMANDS = ("resume", "evaluate", "results", "again")


@contextmanager
def deadline(seconds: int):
    def end(*_):
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def words(command: str, sweep: Path, job: Path) -> tuple[str, ...]:
    return {
        "resume": ("script.py", f"resume={job}"),
        "evaluate": ("evaluate.py", f"run={job}"),
        "results": ("results.py", str(sweep)),
        "again": ("script.py", *SWEEP),
    }[command]


def attacked(sweep: Path, attack: Callable[[Path], object]) -> Path:
    job = job_of(sweep)
    attack(job)
    names = ("results.csv", "results.md", "results.png", "results.html", "multirun.yaml")
    assert not any((sweep / name).exists() for name in names)
    (folder,) = [path for path in sweep.iterdir() if path.is_dir() and path.name[:6] != "seed=0"]
    return folder


def check(name: str, command: str, code: int, output: str, before: dict, sweep: Path, job: Path):
    """What holds for every attack, and the sentence of this one."""
    _, sentence, is_damaged = ATTACKS[name]
    assert "Traceback" not in output
    assert not set(output) & {"\x1b", "\x07", "\u202e"}, output
    assert "the secret" not in output
    after = contents(sweep.parent.parent)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert not os.path.exists(CANARY)
    inside = {key for key in changed if key.startswith(f"runs/{sweep.name}/")}
    assert changed == inside, "the world outside has changed"
    below = {key.partition(f"{sweep.name}/")[2] for key in inside}
    ignored = {"resume": "best.pt", "evaluate": "last.pt"}.get(command)
    is_refused = sentence is not None and name != f"huge {ignored}"
    if command == "evaluate" or (command == "resume" and is_refused):
        assert not below
    elif command == "results":
        assert all(map(OURS.fullmatch, below)), below
    if command in ("resume", "evaluate"):
        assert code == is_refused, output
        assert not is_refused or sentence in output
    elif command == "results":
        assert code == 0, output
        assert ("- damaged: " in output) == is_damaged, output
        assert "| 1    |" in output or not is_damaged  # the other job is in the table
    elif command == "again" and is_damaged and sentence:
        assert code == 1 and sentence in output


def default(number: int, command: str) -> bool:
    """One command for every fourth attack, a few on the sweep, which takes ten times as long; the
    others are slow."""
    if command == "again":
        return number % 40 == 4
    return number % 4 == 0 and COMMANDS[number // 4 % 3] == command


CASES = [
    pytest.param(
        name, command, id=f"{name}-{command}",
        marks=[] if default(number, command) else [pytest.mark.slow],
    )
    for number, name in enumerate(ATTACKS)
    for command in COMMANDS
]  # fmt: skip


@pytest.mark.parametrize(("name", "command"), CASES)
def test_a_folder_of_a_stranger_does_no_harm(call, sweep, capfd, name, command):
    try:
        job = attacked(sweep, ATTACKS[name][0])
    except PermissionError as error:
        pytest.skip(f"needs rights: {error}")
    if command in ("resume", "evaluate") and "${" in job.name:
        job = job.rename(job.with_name("plain"))  # such a name is refused: tests/test_evaluate.py
    before = contents(sweep.parent.parent)
    with deadline(DEADLINE):
        code = call(*words(command, sweep, job))
    check(name, command, code, "".join(capfd.readouterr()), before, sweep, job)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "name", ["pipe config.yaml", "aliases", "nested class", "large model", "huge last.pt"]
)
def test_the_same_holds_for_the_commands_themselves(sweep, data_dir, name, command):
    job = attacked(sweep, ATTACKS[name][0])
    before = contents(sweep.parent.parent)
    script, *rest = words(command, sweep, job)
    done = subprocess.run(
        [sys.executable, str(PROJECT / script), *rest], cwd=sweep.parent.parent, timeout=180,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"DATA_DIR": str(data_dir), "MPLCONFIGDIR": str(data_dir)},
    )  # fmt: skip
    check(name, command, done.returncode, done.stdout, before, sweep, job)


OF_THE_SWEEP = {
    "multirun.yaml": (lambda s: link(s / "multirun.yaml", "../../canary/.bashrc"), "is a link"),
    "results.csv": (lambda s: link(s / "results.csv", "../../canary/.bashrc"), "is a link"),
    "results.md": (lambda s: pipe(s / "results.md"), "is a named pipe"),
    "job": (lambda s: link(job_of(s), "../../canary"), "is a link"),
    "job as a file": (lambda s: removed(job_of(s)).write_text(""), "must be the folder of a job"),
    ".printed": (lambda s: link(s / ".printed", "../../canary"), "is a link"),
    ".submitit": (lambda s: link(s / ".submitit", "../../canary"), "is a link"),
    "owner": (lambda s: os.chown(s, 12345, -1), "belongs to another user"),
    "owner of a job": (lambda s: os.chown(job_of(s), 12345, -1), "belongs to another user"),
}


@pytest.mark.parametrize("command", ["again", "results"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("job", "owner") else [pytest.mark.slow])
        for name in OF_THE_SWEEP
    ],
)
def test_a_sweep_of_a_stranger_does_no_harm(call, sweep, capfd, name, command):
    attack, sentence = OF_THE_SWEEP[name]
    try:
        attack(sweep)
    except PermissionError as error:
        pytest.skip(f"needs rights: {error}")
    before = contents(sweep.parent.parent)
    with deadline(DEADLINE):
        code = call(*words(command, sweep, sweep))
    output = "".join(capfd.readouterr())
    assert "Traceback" not in output
    after = contents(sweep.parent.parent)
    if command == "again":
        assert code == 1 and sentence in output and after == before
    else:
        of_sweep = f"runs/{sweep.name}/results."
        changed = {key for key in before | after if before.get(key) != after.get(key)}
        assert code == 0 and all(key.startswith(of_sweep) for key in changed), output


def test_there_are_eighty_attacks():
    assert len(ATTACKS) >= 80


with suppress(OSError):
    shutil.rmtree(CANARY)
