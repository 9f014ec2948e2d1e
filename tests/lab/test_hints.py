"""A key or a value that does not exist: what was probably meant."""

import re
from functools import cache

import pytest
from conftest import PROJECT, half_slow, options
from hydra import compose, initialize_config_dir

from lab.hints import KEYS, SENTENCES, VALUES, nearest, unknown_key
from lab.schema import DEVICES, PRECISIONS


@cache
def config(name: str, *overrides: str):
    """The config of a command, with Hydra's own."""
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        return compose(name, overrides=list(overrides), return_hydra_config=True)


SEARCH, LOCAL = "hydra/sweeper=optuna", "hydra/launcher=local"
MEANT = [  # the options chosen, the key typed, the key meant
    # at another level, in other letters, misspelt
    ("", "lr", "optimizer.lr"),
    ("", "LR", "optimizer.lr"),
    ("", "scheduler.lr", "optimizer.lr"),
    ("", "train.lr", "optimizer.lr"),
    ("", "optimizer_lr", "optimizer.lr"),
    ("", "Epochs", "epochs"),
    ("", "batchsize", "batch_size"),
    ("", "batch-size", "batch_size"),
    ("", "data.batch_size", "batch_size"),
    ("", "dropout", "model.dropout"),
    ("", "model.net.dropout", "model.dropout"),
    ("", "hidden_size", "model.hidden_sizes"),
    ("", "model.hidden_size", "hidden_sizes"),
    ("", "augmentation.shfit", "shift"),
    ("", "shift", "augmentation.shift or dataset.shift"),
    ("", "checkpoint_every", "checkpoint.every"),
    ("", "hydra.run.dri", "dir"),
    (SEARCH, "n_trials", "hydra.sweeper.n_trials"),
    (LOCAL, "parallel", "hydra.launcher.parallel"),
    # in another option of a group
    ("", "depth", "model.depth, which model=vit has"),
    ("model=vit", "depth", "model.depth"),
    ("", "tracking_uri", "logger.mlflow.tracking_uri, which logger=mlflow has"),
    ("", "momentum", "optimizer.momentum, which optimizer=sgd has"),
    ("", "n_trials", "hydra.sweeper.n_trials, which hydra/sweeper=ax and hydra/sweeper=optuna h"),
    ("", "partition", "hydra.launcher.partition, which hydra/launcher=slurm has"),
    # the words of other tools
    ("", "max_epochs", "epochs"),
    ("", "trainer.max_epochs", "epochs"),
    ("", "num_train_epochs", "epochs"),
    ("", "learning_rate", "optimizer.lr"),
    ("", "optimizer.learning_rate", "optimizer.lr"),
    ("", "per_device_train_batch_size", "batch_size"),
    ("", "trainer.gradient_clip_val", "grad_clip"),
    ("", "accelerator", "device"),
    ("", "trainer.accelerator", "device"),
    ("", "arch", "model"),
    ("", "datamodule", "dataset"),
    ("", "warmup_steps", "scheduler.pct_start"),
    (SEARCH, "direction", "hydra.sweeper.directions"),
    (SEARCH, "hydra.sweeper.direction", "directions"),
    ("", "hydra.sweeper.direction", "hydra.sweeper.directions, which hydra/sweeper=ax"),
]  # fmt: skip


@pytest.mark.parametrize(("chosen", "typed", "meant"), MEANT)
def test_the_hint_names_the_key_that_was_meant_before_the_list_of_keys(chosen, typed, meant):
    cfg = config("config", *chosen.split())
    before, hint, after = unknown_key(typed, cfg).partition(f" Did you mean {meant}")
    assert before.startswith(f"{typed} is not a key of ") and " has " not in before
    assert hint and "?" in after


TOLD = [  # the key typed, a part of what it is told
    ("ckpt_path", "python script.py resume=FOLDER"),
    ("trainer.resume_from_checkpoint", "python evaluate.py run=FOLDER"),
    ("tensorboard", "metrics.csv has every figure; logger=tensorboard"),
    ("logger.wandb.project", "Only logger=wandb has it."),
    ("num_workers", "There are no data loading processes: the images are in memory"),
    ("data.pin_memory", "the images are in memory"),
    ("hparams_search", "python script.py -m sweep=optuna_mlp"),
    ("n_jobs", "hydra/launcher=local hydra.launcher.parallel=2"),
    ("hydra.sweeper.n_jobs", "hydra/launcher=local hydra.launcher.parallel=2"),
    ("hydra.launcher.n_jobs", "hydra/launcher=local hydra.launcher.parallel=2"),
    ("study_name", "name=NAME with --multirun"),
    ("hydra.sweeper.study_name", "name=NAME with --multirun"),
    ("output_dir", "hydra.run.dir=FOLDER"),
    ("trainer.strategy", "torchrun --nproc-per-node=N script.py"),
    ("callbacks.early_stopping.patience", "There is no early stopping: best.pt"),
    ("max_steps", "epochs=N"),
    ("images", "python evaluate.py run=FOLDER images="),
    ("optimizer.momentum", "Only optimizer=sgd has it."),
    ("trainer.anything", "There is no trainer object"),
]


@pytest.mark.parametrize(("typed", "told"), TOLD)
def test_words_of_other_tools_without_a_key_are_explained(typed, told):
    before, hint, after = unknown_key(typed, config("config")).partition(told)
    assert hint and " has " not in before and "Did you mean" not in before + after


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("resume", "Did you mean run?"),
        ("picture", "Did you mean images?"),
        ("gpu", "Did you mean device?"),
        ("lr", "lr is not a key of the config. The config has run,"),  # nothing to train
        ("epochs", "epochs is not a key of the config. The config has run,"),
    ],
)
def test_hints_of_evaluate_name_only_what_it_has(typed, told):
    assert told in unknown_key(typed, config("evaluate"))


def test_a_key_that_means_nothing_gets_the_list_alone():
    sentence = unknown_key("optimizer.nothing", config("config"))
    assert sentence.startswith(
        "optimizer.nothing is not a key of optimizer. optimizer has lr, betas, weight_decay, "
        "fused. torch.optim.Adam has no nothing; its other arguments are added with a plus, as in "
        "+optimizer.eps=…: eps, amsgrad, "
    )


@pytest.mark.parametrize(
    ("typed", "among", "meant"),
    [
        ("MLP", options("model"), "mlp"),
        ("mpl", options("model"), "mlp"),
        ("ResNet", options("model"), "resnet18"),
        ("Logistic_Regression", options("model"), "linear"),
        ("transformer", options("model"), "vit"),
        ("FashionMNIST", options("dataset"), "fashion"),
        ("fashion-mnist", options("dataset"), "fashion"),
        ("MNIST", options("dataset"), "mnist"),
        ("AdamW", options("optimizer"), "adamw"),
        ("OneCycleLR", options("scheduler"), "onecycle"),
        ("gpu", DEVICES, "cuda"),
        ("GPU", DEVICES, "cuda"),
        ("gpu:0", DEVICES, "cuda"),
        ("cuda:1", DEVICES, "cuda"),
        ("metal", DEVICES, "mps"),
        ("16-mixed", PRECISIONS, "bf16"),
        ("32", PRECISIONS, "fp32"),
        ("joblib", options("hydra/launcher"), "local"),
        ("tpu", DEVICES, None),  # no misspelt cpu
        ("nothing_like_it", options("model"), None),
    ],
)
def test_the_nearest_value_ignores_case_and_knows_other_names(typed, among, meant):
    assert nearest(typed, among) == (f" Did you mean {meant}?" if meant else "")


def test_the_tables_name_keys_that_exist_and_no_word_twice():
    known = {"run", "images"}
    for path in (PROJECT / "config").rglob("*.yaml"):
        known |= set(re.findall(r"(\w+):", path.read_text()))
    assert {name.rpartition(".")[2] for name in KEYS} <= known
    for table in (KEYS, SENTENCES, VALUES):
        words = [word for text in table.values() for word in text.split()]
        assert len(words) == len(set(words)), {word for word in words if words.count(word) > 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    half_slow([
        (["lr=0.01"], "Did you mean optimizer.lr? The config has dataset,"),
        (["+lr=0.01"], "Did you mean optimizer.lr? The config has dataset,"),
        (["trainer.max_epochs=3"], "trainer.max_epochs is not a key of the config. Did you mean "),
        (["+trainer.max_epochs=3"], "There is no trainer object"),
        (["model=MLP"], "Did you mean mlp?"),
        (["device=gpu"], "Did you mean cuda?"),
        (["-m", "hydra.sweeper.n_jobs=2"], "hydra.launcher.parallel=2"),
        (["-m", "hydra/launcher=joblib"], "Did you mean local?"),
        (["optimizer.nothing=1"], "weight_decay, fused. torch.optim.Adam has no nothing; "),
        (["-m", "hydra.sweeper.nothing=1"], "hydra.sweeper has max_batch_size, params.\n"),
    ]),
)  # fmt: skip
def test_commands_print_the_hint(script, capfd, arguments, message):
    assert script("dataset=digits", *arguments) == 1
    output = "".join(capfd.readouterr())
    assert message in output and "Traceback" not in output
