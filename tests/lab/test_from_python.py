"""The experiment called from Python: in this process, in a fresh one, and in IPython."""

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from conftest import PROJECT, composed
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import script as experiment
from evaluate import load
from lab import record
from lab.errors import ConfigError, Refusal, RunFailed

TINY = ("model=linear", "dataset=digits", "debug=smoke")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_train_returns_the_result_and_its_folder(tmp_path):
    result = experiment.train(*TINY, folder="mine")
    folder = tmp_path / "mine"
    assert result == record.read_result(folder) | {"folder": folder}
    assert result["status"] == "finished" and result["command"][:2] == ["script.train", TINY[0]]
    assert "epoch 1/1" in (folder / "script.log").read_text()
    assert experiment.train(*TINY, folder="mine") == result  # it is finished
    other = experiment.train(*TINY, "seed=1", "model=mlp")
    assert other["folder"].parent.parent == tmp_path / "runs"
    assert (other["seed"], other["model"], other["command"][-1]) == (1, "mlp", "model=mlp")
    longer = experiment.train("resume=mine", "epochs=2")
    assert (longer["epochs"], longer["folder"]) == (2, folder)


def test_a_run_from_python_equals_that_of_the_command(tmp_path, script):
    assert script(*TINY, "hydra.run.dir=command") == 0
    experiment.train(*TINY, folder=tmp_path / "python")
    first, second = (torch.load(tmp_path / name / "last.pt") for name in ("command", "python"))
    assert all(map(torch.equal, first["model"].values(), second["model"].values()))
    files = [{path.name for path in (tmp_path / name).rglob("*")} for name in ("command", "python")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_load_gives_the_model_in_evaluation_mode_with_its_classes(tmp_path):
    import sources

    result = experiment.train("model=mlp", "dataset=digits", "epochs=2", folder="name with space")
    trained = load(result["folder"])
    assert not trained.model.training and trained.classes == list("0123456789")
    _, test_set, _ = sources.load(sources.Digits, tmp_path, trained.cfg.dataset)
    probabilities = trained.probabilities(test_set.images)
    assert probabilities.shape == (360, 10)
    assert torch.allclose(probabilities.sum(1), torch.ones(360))
    right = (probabilities.argmax(1) == test_set.labels).double().mean().item()
    assert right == result["test_accuracy"]
    with pytest.raises(Refusal, match="nothing is not a folder"):
        load("nothing")


REFUSALS = [
    (["epocs=3"], ConfigError, "Did you mean epochs?"),
    (["model=mpl"], ConfigError, "model=mpl does not exist"),
    (["epochs"], ConfigError, "Error parsing override 'epochs'"),
    (["seed=0,1"], ConfigError, "seed=0,1 gives several values"),
    (["-m", "seed=0,1"], ConfigError, "-m is a flag of the command line"),
    (["hydra.mode=MULTIRUN"], ConfigError, "one run is started at a time"),
    (["resume=nowhere"], Refusal, "nowhere is not a folder"),
    (["hydra/callbacks=clean_git"], Refusal, "not clean"),
    ([["seed=1"]], ConfigError, r"\['seed=1'\] is not an override: give strings"),
    (["epochs=0"], RunFailed, "epochs=0 is not allowed"),
    (["model.hidden_sizes=[0]"], RunFailed, r"hidden_sizes=\[0\]"),
]


@pytest.mark.parametrize(("overrides", "kind", "message"), REFUSALS, ids=lambda value: str(value))
def test_errors_are_exceptions(monkeypatch, overrides, kind, message):
    monkeypatch.setattr("lab.provenance.changed_files", lambda: "?? file")
    with pytest.raises(kind, match=message):
        experiment.train(*overrides)
    assert not GlobalHydra.instance().is_initialized() and HydraConfig.instance().cfg is None


@pytest.mark.parametrize("override", ["hydra.run.dir=other", "resume=other"])
def test_two_folders_are_refused(override):
    with pytest.raises(ConfigError, match="folder=mine is a second folder"):
        experiment.train(override, folder="mine")


def test_an_interrupted_run_raises_keyboard_interrupt_and_resumes(monkeypatch):
    import training

    whole = experiment.train(*TINY, "epochs=3", folder="whole")
    evaluate = training.evaluate

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*arguments)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(training, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.train(*TINY, "epochs=3", folder="parts")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before
    assert record.read_result(whole["folder"].parent / "parts")["status"] == "interrupted"
    parts = experiment.train(f"resume={whole['folder'].parent / 'parts'}")
    assert parts["test_loss"] == whole["test_loss"]


def test_a_run_in_another_thread(tmp_path):
    """Only the main thread may handle signals."""
    thread = threading.Thread(target=experiment.train, args=TINY, kwargs={"folder": "mine"})
    thread.start()
    thread.join()
    assert record.read_result(tmp_path / "mine")["status"] == "finished"


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_the_logging_of_the_program_decides_what_it_shows(tmp_path, capfd, caplog, level):
    root, ours = logging.getLogger(), logging.getLogger("lab.run")
    caplog.set_level(level)
    before = root.handlers[:], root.level, ours.level, ours.handlers[:], ours.propagate
    experiment.train(*TINY, folder="mine")
    assert before == (root.handlers, root.level, ours.level, ours.handlers, ours.propagate)
    assert caplog.text.count("epoch 1/1") == (level == logging.INFO)
    assert "epoch 1/1" not in capfd.readouterr().out  # it has been shown by the program's handler
    assert (tmp_path / "mine/script.log").read_text().count("epoch 1/1") == 1


PROGRAM = """
import os, sys
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

config = os.path.abspath("own")
with initialize_config_dir(config, version_base="1.2", job_name="own"):
    import script
    from evaluate import load
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    overrides = ["model=linear", "dataset=digits", "debug=smoke"]
    first = script.train(*overrides, folder="first")
    second = script.train(*overrides, folder="second")
    assert first["test_loss"] == second["test_loss"]
    assert before == (GlobalHydra.instance().hydra, HydraConfig.instance().cfg)
    assert compose("own").answer == 42
assert os.getcwd() == os.path.dirname(config)
print("classes", *load("first").classes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["python", "ipython"])
def test_in_a_fresh_interpreter_with_a_hydra_of_its_own(tmp_path, shell):
    if shell == "ipython" and not importlib.util.find_spec("IPython"):
        pytest.skip("IPython is not installed")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/own.yaml").write_text("answer: 42\n")
    command = [sys.executable, *(["-m", "IPython", "--quick"] if shell == "ipython" else [])]
    done = subprocess.run(
        [*command, "-c", PROGRAM],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "IPYTHONDIR": str(tmp_path / "ipython")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "classes 0 1 2 3 4 5 6 7 8 9"
    assert done.stdout.count("finished: ") == 2 and "Traceback" not in done.stdout
    assert not done.stderr


def test_composing_for_tests_is_not_disturbed():
    experiment.train(*TINY, folder="mine")
    assert composed("epochs=77").epochs == 77
