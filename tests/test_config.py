"""Every config composes and builds; invalid ones are refused before any data is read."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import PROJECT, composed, half_slow, options, run_folders
from hydra.utils import instantiate
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab import schema
from lab.build import build, build_schedule
from lab.errors import explain

FOLDERS = {path.name for path in (PROJECT / "config").iterdir() if path.is_dir()}
GROUPS = sorted(FOLDERS - {"hydra"})
MODELS = ", ".join(options("model"))
EVERY_OPTION = [f"{group}={option}" for group in GROUPS for option in options(group)]


@pytest.mark.parametrize("choice", EVERY_OPTION)
def test_every_config_composes_and_builds(choice):
    if choice == "model=timm":
        pytest.importorskip("timm", reason="needs env/requirements-timm.txt")
    cfg = composed(choice)
    schema.check(cfg)
    model = build(cfg, "model")
    images = torch.zeros(2, cfg.dataset.in_channels, cfg.dataset.image_size, cfg.dataset.image_size)
    assert model(images).shape == (2, cfg.dataset.num_classes)
    optimizer = build(cfg, "optimizer", model.parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)
    scheduler = build(cfg, "scheduler", optimizer, total_steps=7)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert callable(instantiate(cfg.dataset.source, _partial_=True))


def test_tests_compose_what_hydra_composes(script, capfd, tmp_path):
    """They remember what it has read and merged (`remembering.py`); a process does not."""
    words = ("--cfg", "all", "model=vit", "dataset=digits", "hydra/launcher=local", "+x=${seed}")
    command = [sys.executable, PROJECT / "script.py", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    for _ in range(2):  # the second time, all is remembered
        assert script(*words) == 0
        assert capfd.readouterr().out == done.stdout
    assert "hydra:" in done.stdout and "patch_size" in done.stdout


@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_schedulers_span_the_total_number_of_steps(scheduler):
    cfg = composed(f"scheduler={scheduler}", "optimizer=sgd")
    optimizer = build(cfg, "optimizer", [torch.nn.Parameter(torch.zeros(1))])
    schedule = build_schedule(cfg, optimizer, [4] * 10)
    rates = []
    for _ in range(10):
        for _ in range(4):
            rates.append(schedule.lr)
            optimizer.step()
            schedule.step()
        schedule.end_epoch({"val_loss": 1.0})
    assert max(rates) == pytest.approx(cfg.optimizer.lr, rel=0.02)
    if scheduler != "constant":
        assert rates[-1] < 0.05 * cfg.optimizer.lr
    if scheduler in ("onecycle", "warmup_cosine"):
        assert rates[0] < 0.1 * cfg.optimizer.lr


@pytest.mark.parametrize("steps", range(1, 40))
def test_onecycle_accepts_any_number_of_steps(steps):
    cfg = composed("scheduler=onecycle")
    optimizer = build(cfg, "optimizer", [torch.nn.Parameter(torch.zeros(1))])
    schedule = build(cfg, "scheduler", optimizer, total_steps=steps)
    for _ in range(steps):
        optimizer.step()
        schedule.step()


def test_the_command_line_overrides_the_defaults_of_a_model():
    assert composed("model=linear").augmentation == composed("augmentation=none").augmentation
    assert composed("model=cnn", "augmentation=none").augmentation.mirror is False
    assert composed("model=cnn", "epochs=3").epochs == 3


REFUSALS = [
    # names
    (["epocs=3"], "epocs is not a key of the config.*Did you mean epochs?"),
    (["modle=mlp"], "Did you mean model?"),
    (["model=mpl"], f"model=mpl does not exist: use one of {MODELS}. .*mean mlp?"),
    (["dataset=fasion"], "Did you mean fashion?"),
    (["optimizer=adamm"], "Did you mean adam"),
    (["optimizer.learning_rate=1"], r"optimizer.learning_rate is not a key of optimizer.*\+optim"),
    (["model.hidden_size=[3]"], "Did you mean hidden_sizes?"),
    (["augmentation.shfit=1"], "augmentation.shfit.*Did you mean shift?"),
    (["+epoch=3"], "epoch is not a key of the config. Did you mean epochs?.* has .*epochs"),
    (["model=linear,mlp"], "--multirun"),
    (["epochs"], "Error parsing override 'epochs': it must be key=value, without spaces"),
    (["model=linear,", "mlp"], "several values are written without spaces, as in model=linear,mlp"),
    (["optimizer=adam.yaml"], "optimizer=adam.yaml names a file: write optimizer=adam"),
    (["seed=0-2"], r"seed=0-2 is not allowed: .*give range\(0,3\) with --multirun"),
    (["dataset=null"], "must be a string"),
    # types
    (["epochs=abc"], "epochs=abc is not allowed: it must be a whole number"),
    (["epochs=1.5"], "epochs=1.5 is not allowed: it must be a whole number"),
    (["dataset.mean=${epochs}"], "dataset.mean=10 is not allowed: it must be a list."),
    (["compile=maybe"], "compile=maybe is not allowed: it must be auto, true or false"),
    (["val_size=big"], "val_size=big is not allowed: it must be a number"),
    # values
    (["epochs=0"], "epochs=0 is not allowed: it must be a whole number of at least 1"),
    (["batch_size=0"], "batch_size=0 is not allowed: it must be a whole number of at least 1"),
    (["optimizer.lr=-1"], "optimizer.lr=-1 is not allowed: it must be a number above 0"),
    (["optimizer.lr=fast"], "optimizer.lr=fast is not allowed: it must be a number above 0"),
    (["optimizer.lr=.nan"], "optimizer.lr=.*is not allowed"),
    (["val_size=60000"], "val_size=60000.* is not allowed.*below 60000"),
    (["val_size=-0.1"], "val_size=-0.1 is not allowed"),
    (["label_smoothing=1"], "label_smoothing=1.0 is not allowed: it must be at least 0"),
    (["grad_clip=0"], "grad_clip=0.0 is not allowed"),
    (["seed=-1"], "seed=-1 is not allowed"),
    (["limit=0"], "limit=0 is not allowed"),
    (["augmentation.shift=-1"], "augmentation.shift=-1 is not allowed"),
    (["device=gpu"], "device=gpu is not allowed: use one of auto, cpu, cuda, mps."),
    (["precision=bf15"], "precision=bf15 is not allowed.*Did you mean bf16?"),
    (["shrink.share=1", "shrink.factor=0.01"], "shrink.factor=0.01 is not allowed.*at least 1/28"),
    (["model.hidden_sizes=[99999999999]"], "the model is too large for this machine: .* GB"),
    (["model.hidden_sizes=[99999999999999999999]"], "model .models.MLP."),
    (["checkpoint=???"], r"checkpoint=\?\?\? is not allowed: it must have a value"),
    (["optimizer.lr=???"], "Missing mandatory value: optimizer.lr"),
    (["dataset.classes=[a,b]"], "dataset.classes=.*one name per class"),
    (["dataset.mean=[0,0,0]"], "dataset.mean=.*one value per channel"),
    (["model=null"], "model=null is not allowed: model is a group.*one of cnn, linear, mlp, res"),
    (["scheduler=5"], "scheduler=5 is not allowed: scheduler is a group.*constant, cosine, onec"),
    (["optimizer={a:1}"], "optimizer.a is not a key of optimizer"),
    (["+model=mlp"], "model is chosen twice: .* Write model=… without a [+], or leave"),
    (["seed=range(0)"], "seed=range.0. gives several values, which needs --multirun"),
    (["-m", "seed=range(0)"], "The sweep has no job: one of its keys has no value"),
    (["-m", "seed=range(0,2,0)"], "seed=range.0,2,0. is not allowed: range.. arg 3 must not be"),
    (["-m", "seed=choice()"], "Error parsing override 'seed=choice..'.*empty choice"),
    (["experiment=mine,null"], "experiment=mine,null gives several values.*--multirun"),
    (["model.dropout='0.1"], "override 'model.dropout='0.1': a quotation mark is not closed"),
    (['device="x'], "a quotation mark is not closed"),
    (["model.hidden_sizes=[1,2"], "override 'model.hidden_sizes=.1,2': a bracket is not closed: ]"),
    (["seed=1]"], "no bracket is open for ]"),
    (["device=a b:c=d"], "it must be key=value. A value with spaces or any of"),
    (["hydra.run.dir="], "hydra.run.dir= is not allowed: it must name a folder"),
    (["hydra.run.dir=''"], "hydra.run.dir='' is not allowed: it must name a folder"),
    (["-m", "hydra.sweep.dir=null"], "hydra.sweep.dir=null is not allowed"),
    (["seed=${oc.env:NOT_SET}"], "'NOT_SET' not found.*: set the variable, or give a default"),
    (["seed=${nope}"], "nope, to which .* refers, is not in the config: add it with .nope="),
    (["~optimizer.lr"], "optimizer.lr, to which scheduler.max_lr refers, is not in the config"),
    (["~dataset"], "dataset has no option, to which .*dataset.* refers: give one, dataset=NAME"),
    (["~model"], "model has no option"),
    (["tuned=typo"], "tuned=typo is not allowed: its option follows from .* ~tuned uses none"),
    (["hydra.run=5"], "hydra.run=5 is not allowed"),
    (["--config-dir", "/nowhere"], "'/nowhere' not found"),
    (["optimizer.lr=true"], "optimizer.lr=True is not allowed: it must be a number above 0"),
    (["optimizer.lr='1e-3'"], "optimizer.lr='1e-3' is text: without quotes it is a number"),
    (["label_smoothing=true"], "label_smoothing=True is not allowed: it must be a number"),
    (["epochs=99999999999999999999"], "epochs=9+ is not allowed: .*at most 1000000"),
    (["epochs=2000000000"], "epochs=2000000000 is not allowed: .* at most 1000000"),
    (["batch_size=99999999999999999999"], "batch_size=9+ is not allowed"),
    (["limit=99999999999999999999"], "limit=9+ is not allowed"),
    (["augmentation.shift=99999999999999999999"], "shift=9+ is not allowed.*fewer than the 28"),
    (["dataset.shift=28"], "dataset.shift=28 is not allowed|augmentation.shift=28"),
    (["val_size=2.5"], "val_size=2.5 is not allowed: it must be a fraction below 1, or a whole"),
    (["total_steps=5"], "total_steps=5 has no effect.*: set epochs"),
    (["dataset.std=[-1]"], "dataset.std=.-1.0. is not allowed: it must be a list of numbers above"),
    (["dataset.std=[0]"], "dataset.std=.0.0. is not allowed"),
    (["dataset.mean=[nan]"], "dataset.mean=.nan. is not allowed: it must be a list of finite"),
    (["dataset.std=[[1]]"], "dataset.std=..1.. is not allowed: it must be a list of single"),
    (["dataset.image_size=0"], "dataset.image_size=0 is not allowed"),
    (["dataset.margin=14"], "dataset.margin=14 is not allowed: .* less than half of image_size"),
    (["dataset.classes=[true,a]"], "classes=.*True.* is not allowed: it must be a list of words"),
    (["optimizer._partial_=false"], "optimizer._partial_=False.*must say _partial_: true"),
    (["~scheduler._partial_"], "scheduler._partial_=None.*must say _partial_: true"),
    (["+model._partial_=true"], "model._partial_=true is not allowed: leave it out"),
    (["optimizer=sgd", "optimizer.betas=[1,2]"], "SGD has no betas.*as in .optimizer.damp"),
    (["-m", "hydra/launcher=local", "hydra.launcher.parallel=0"], "parallel=0 is not allowed"),
    (["-m", "hydra/launcher=local", "hydra.launcher.parallel=-1"], "parallel=-1 is not allowed"),
    (["-m", "hydra/launcher=local", "hydra.launcher.parallel=1.5"], "parallel=1.5 is not allowed"),
    (["-m", "hydra.sweeper.params=5"], "hydra.sweeper.params=5 is not allowed"),
    # errors that only the constructors can detect
    (["model=vit", "model.patch_size=5"], "patch_size=5 does not divide image_size=28"),
    (["model=vit", "model.num_heads=7"], "num_heads=7 does not divide dim="),
    (
        ["shrink.share=0.5"],
        "shrink.share=0.5 trains on smaller images first: models.MLP, built for 28 × 28 pixels, "
        "cannot take 20 × 20. Set shrink.share=0.",
    ),
    (["model=vit", "shrink.share=0.5"], "models.ViT, built for 28 × 28.* cannot take 20 × 20"),
    (
        ["model=cnn", "dataset=digits", "~tuned", "model.kernel_sizes=[5,2,2]"],
        "models.FCNN, built for 8 × 8 pixels, cannot take 6 × 6",
    ),
    (["model.hidden_sizes=[0]"], r"hidden_sizes=\[0\]: every size"),
    (["model.hidden_sizes=abc"], "hidden_sizes=abc"),
    (["+model.width=3"], "model.width is not an argument of models.MLP"),
    (["+model.droput=0.1"], "model.droput is not an argument of models.MLP. Did you mean dropout?"),
    (["+optimizer.beta=3"], "optimizer.beta is not an argument.*Did you mean betas?"),
    (["optimizer.betas=[2,3]"], "optimizer .torch.optim.Adam.: Invalid beta"),
    (["model._target_=models.MLPP"], "models.MLPP"),
    (["model._target_=os.system"], "os.system"),
    (["model.num_classes=12"], "returns a tensor .2, 12., but .* float tensor .2, 10..*last layer"),
    (["dataset=digits", "model=cnn", "batch_size=1"], "Batch norm needs two images per batch"),
    (["dataset=digits", "model=cnn", "limit=1"], "Expected more than 1 value per channel.*limit"),
    (["optimizer._target_=torch.optim.RMSProp"], "torch.optim has no RMSProp. .*mean RMSprop?"),
    (["optimizer.weight_decay=true"], "weight_decay=true is not allowed: .* takes a number"),
    (["~model.hidden_sizes"], "model.hidden_sizes is missing: models.MLP needs it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    half_slow(REFUSALS),
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_invalid_overrides_are_refused(script, capfd, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "nothing"))  # reading data would fail differently
    assert script(*arguments) == 1
    output = "".join(capfd.readouterr())
    assert "Traceback" not in output
    assert re.search(message, output.replace("\n", " ")), output
    assert not (tmp_path / "nothing").exists()


def test_an_unavailable_device_is_refused(script, capfd):
    unavailable = next(name for name in ("cuda", "mps") if not getattr(torch, name).is_available())
    assert script("dataset=digits", f"device={unavailable}") == 1
    assert f"device={unavailable} is not on this machine" in capfd.readouterr().out


def test_the_error_for_a_misspelt_key_names_the_config_file(script, capfd, tmp_path):
    folder = tmp_path / "mine/experiment"
    folder.mkdir(parents=True)
    (folder / "typo.yaml").write_text("# @package _global_\nepocs: 3\n")
    assert script("--config-dir", str(tmp_path / "mine"), "experiment=typo") == 1
    error = capfd.readouterr().err
    assert "epocs is not a key of the config" in error and "Did you mean epochs?" in error
    assert "experiment/typo" in error


def test_the_result_of_a_refused_run_gives_the_reason(script, tmp_path):
    script("dataset=digits", "epochs=0")
    (folder,) = run_folders(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["reason"].startswith("epochs=0 is not allowed")


def test_the_error_for_a_full_disk_names_the_run_folder(tmp_path, monkeypatch):
    """Hydra writes the first file, and the error that it raises names no file."""
    monkeypatch.chdir(tmp_path)
    message = explain(OSError(28, "No space left on device"))
    assert message.startswith(f"No space left on device: a file of the run, in {tmp_path} unless")


def test_hydra_full_error_shows_the_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, PROJECT / "script.py", "epocs=3"],
        cwd=tmp_path, env=os.environ | {"HYDRA_FULL_ERROR": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-sc", "query=bash"],
        ["epochs=0"],
        ["resume=/nowhere"],
    ],
    ids=" ".join,
)
def test_help_and_refusals_do_not_import_torch(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", PROJECT / "script.py", *arguments],
        cwd=tmp_path,
        env=os.environ | {"COMP_LINE": "script.py mod", "COMP_POINT": "13"},
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported and "torch" not in imported


KEYS = st.sampled_from(
    ["epochs", "model", "optimizer", "optimizer.lr", "dataset", "dataset.mean", "dataset.source",
     "augmentation.shift", "checkpoint", "seed", "data_dir", "val_size", "scheduler", "debug", "x",
     "optimizer.betas", "optimizer._target_", "model._target_", "scheduler._partial_", "shrink",
     "model.hidden_sizes", "dataset.classes", "dataset.source._target_", "hydra",
     "hydra.job_logging", "hydra.sweeper.params", "total_steps"]
)  # fmt: skip
LEAVES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["null", "???", "${epochs}", "${nope}", "1e400", "true", "'1'", "models.MLP"]),
    st.integers().map(str),
    st.floats().map(str),
)
VALUES = st.recursive(  # also nested ones
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(st.sampled_from(["a", "_target_", "lr", "1"]), inner, max_size=2).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs.items()) + "}"
        ),
    ),
    max_leaves=4,
)
OVERRIDES = st.one_of(
    st.text(max_size=12),
    st.tuples(st.sampled_from(["", "+", "++", "~"]), KEYS, VALUES).map(
        lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"
    ),
)


@settings(max_examples=15, deadline=None)
@given(OVERRIDES)
@example("dataset.mean=${epochs}")
@example("+x=1")
@example("checkpoint=???")
def test_random_overrides_never_cause_a_traceback(override):
    try:
        schema.check(composed(override))
    except Exception as error:
        assert explain(error), repr(error)


def assert_no_traceback(script, capfd, override: str) -> None:
    arguments = ("dataset=digits", "debug=smoke", "model=linear", "limit=64", override)
    code = script(*arguments)
    output = "".join(capfd.readouterr())
    assert code in (0, 1, 2) and "Traceback" not in output, output


BOUNDED_OVERRIDES = OVERRIDES.filter(lambda override: not re.match(r"[+]*epochs=|.*\0", override))
FUZZING = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=6
)


@FUZZING
@given(BOUNDED_OVERRIDES)
def test_the_script_shows_no_traceback_for_random_overrides(script, capfd, override):
    assert_no_traceback(script, capfd, override)


@pytest.mark.slow
@settings(FUZZING, max_examples=500)
@given(BOUNDED_OVERRIDES)
def test_the_script_shows_no_traceback_for_many_random_overrides(script, capfd, override):
    assert_no_traceback(script, capfd, override)


def test_help_lists_groups_options_and_five_examples(script, capfd):
    assert script("--help") == 0
    text = capfd.readouterr().out
    for group in GROUPS:
        if options(group):
            assert f"{group}: {', '.join(options(group))}" in text
    assert text.count("  python script.py") >= 5
