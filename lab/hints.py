"""What was probably meant by a key or a value that does not exist.

A misspelt name has a nearest one. A name from another tool is looked up in the tables below, which
give the key that does the same here, or a sentence where no single key does.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from lab.arguments import how_to_add

CONFIG = Path(__file__).resolve().parent.parent / "config"

# Keys of this config: the names that other tools have for them. Case, _ and - do not count.
KEYS = {
    "epochs": "max_epochs num_epochs n_epochs num_train_epochs nb_epochs nb_epoch total_epochs",
    "batch_size": "bs batch train_batch_size per_device_train_batch_size batch_size_per_gpu",
    "optimizer.lr": "learning_rate base_lr initial_lr init_lr lr0 peak_lr step_size",
    "optimizer.weight_decay": "wd decay l2 l2_reg",
    "optimizer": "optim opt algorithm solver",
    "scheduler": "lr_scheduler lr_scheduler_type sched lr_schedule lr_policy",
    "scheduler.pct_start": "warmup warmup_epochs warmup_steps warmup_ratio num_warmup_steps",
    "model": "arch architecture net network backbone encoder classifier",
    "model.dropout": "drop drop_rate dropout_rate p_drop",
    "model.num_heads": "heads n_heads n_head num_attention_heads",
    "model.depth": "num_layers n_layers n_layer num_hidden_layers",
    "model.dim": "embed_dim d_model n_embd hidden_dim hidden_size",
    "model.hidden_sizes": "hidden_dims hidden_units hidden layers layer_sizes lin1_size",
    "dataset": "data datamodule dm task corpus",
    "data_dir": "data_path data_root dataset_dir dataset_path root root_dir data_folder",
    "val_size": "val_split validation_split val_fraction val_ratio valid_size train_val_test_split",
    "limit": "limit_train_batches limit_val_batches limit_test_batches max_samples subset "
    "max_train_samples num_samples fast_dev_run overfit_batches",
    "augmentation": "aug augment transform transforms train_transforms data_augmentation",
    "class_weights": "class_weight pos_weight balanced weighted_loss sample_weight",
    "folds": "n_folds num_folds k_folds kfold n_splits cv cross_validation",
    "fold": "fold_index fold_idx fold_id",
    "grad_clip": "gradient_clip_val clip_grad max_grad_norm max_norm clip_grad_norm clipnorm clip",
    "label_smoothing": "smoothing label_smoothing_factor",
    "seed": "random_seed manual_seed random_state rng_seed",
    "device": "accelerator gpu gpus cuda use_cuda use_gpu no_cuda cpu gpu_id",
    "precision": "amp fp16 bf16 mixed_precision dtype use_amp half autocast",
    "compile": "torch_compile use_compile jit",
    "deterministic": "cudnn_deterministic benchmark cudnn_benchmark",
    "checkpoint.every": "every_n_epochs every_n_train_steps save_every save_steps save_interval "
    "save_freq save_period checkpoint_interval save_strategy",
    "checkpoint": "model_checkpoint checkpointing save_checkpoint",
    "experiment": "exp recipe preset",
    "run": "run_dir run_folder resume",
    "images": "image pictures picture input inputs files source",
    "hydra.sweeper.n_trials": "num_trials trials max_trials max_evals budget n_iter total_trials",
    "hydra.sweeper.directions": "direction mode goal",
    "hydra.sweeper.objectives": "objective metric metrics monitor optimized_metric",
    "hydra.sweeper.params": "search_space params parameters grid",
    "hydra.sweeper.storage": "storage_url database",
    "hydra.sweeper.max_failure_rate": "catch",
    "hydra.sweeper.sampler": "tpe",
    "hydra.sweeper.pruner": "prune pruning",
}  # fmt: skip

# What no single key does: the names that other tools have for it.
SENTENCES = {
    "A run is continued by python script.py resume=FOLDER and evaluated by python evaluate.py "
    "run=FOLDER.": "ckpt_path ckpt checkpoint_path resume resume_from resume_from_checkpoint "
    "load_from load_checkpoint pretrained weights weights_path restore run test evaluate train",
    "Your own pictures are classified by python evaluate.py run=FOLDER images=[a.png,b.png].":
    "images predict predictions inference",
    "metrics.csv has every figure; logger=tensorboard, mlflow, wandb or trackio shows them.":
    "logger loggers wandb tensorboard mlflow trackio comet neptune aim csv log_every_n_steps "
    "tags report_to log_interval log_freq logging use_wandb tracker trackers",
    "There are no data loading processes: the images are in memory, or read ahead of each step.":
    "num_workers n_workers workers dataloader_num_workers pin_memory persistent_workers "
    "prefetch_factor dataloader loader",
    "A search is a recipe, python script.py -m sweep=optuna_mlp, or a sweeper, "
    "python script.py -m hydra/sweeper=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-1))'.":
    "hparams_search hparam_search hyperparameter_search search tune tuner optuna ax sweeper "
    "hpo automl",
    "To run jobs side by side, add hydra/launcher=local hydra.launcher.parallel=2 to a sweep; a "
    "search needs hydra.sweeper.parallel=2, too.": "n_jobs num_jobs jobs max_workers parallel "
    "n_parallel launcher num_processes nproc",
    "A sweep or search is named by name=NAME with --multirun; a single run by its folder, "
    "hydra.run.dir=FOLDER.": "study_name study experiment_name exp_name run_name task_name group "
    "job_name sweep_name version",
    "The folder of a run is hydra.run.dir=FOLDER; that of a sweep is runs/NAME: name=NAME.":
    "output_dir out_dir output out save_dir log_dir logdir work_dir workdir default_root_dir "
    "folder result_dir results_dir exp_dir",
    "torchrun --nproc-per-node=N script.py trains on N GPUs; hydra/launcher=slurm uses a cluster.":
    "devices num_devices strategy num_nodes ddp distributed world_size n_gpu n_gpus num_gpus rank "
    "local_rank sync_batchnorm",
    "There is no early stopping: best.pt keeps the weights of the best epoch, and a search stops "
    "weak trials with hydra/sweeper/pruner=median.":
    "early_stopping early_stop patience early_stopping_patience min_delta",
    "Gradients are not accumulated over batches: set batch_size.":
    "accumulate_grad_batches gradient_accumulation_steps grad_accum accumulation_steps accum_iter",
    "The length of a run is counted in epochs: epochs=N.":
    "max_steps num_steps n_steps iterations max_iter max_iters num_iterations steps max_time",
    "Validation follows every epoch, and the test images are used once, at the end.":
    "check_val_every_n_epoch val_check_interval eval_every eval_steps eval_interval "
    "evaluation_strategy eval_strategy num_sanity_val_steps validate test_every",
    "The batches of training are drawn by the seed: seed=N.": "shuffle drop_last sampler",
    "The loss is the cross entropy; label_smoothing=0.1 smooths its targets.":
    "loss criterion loss_fn loss_function",
    "There is no trainer object: its settings are keys like epochs, device and grad_clip.":
    "trainer training fit hparams hyperparameters args config cfg",
    "Callbacks are Hydra's: hydra/callbacks=announce.": "callbacks callback hooks",
    "Hydra's flag --cfg job prints the config.": "print_config verbose debug_config show_config",
}  # fmt: skip

# Values: what other tools call them.
VALUES = {
    "cuda": "gpu nvidia rocm", "mps": "metal apple m1 m2", "auto": "default any",
    "bf16": "bfloat16 fp16 float16 half 16 16mixed bf16mixed 16true bf16true amp mixed",
    "fp32": "float32 float single full 32 32true tf32 highest",
    "linear": "logistic logreg logisticregression softmax", "mlp": "fc dense fcn feedforward",
    "cnn": "fcnn conv convnet lenet", "resnet18": "resnet", "vit": "transformer vitb16",
    "fashion": "fashionmnist fmnist", "digits": "sklearn uci", "kmnist": "kuzushiji",
    "sgd": "nesterov momentum", "onecycle": "onecyclelr 1cycle", "cosine": "cosineannealinglr",
    "constant": "constantlr fixed", "none": "no off null false", "seconds": "time minutes",
    "local": "joblib multiprocessing submititlocal", "slurm": "submitit submititslurm cluster",
    "median": "medianpruner", "tpe": "tpesampler bayes", "maximize": "max", "minimize": "min",
}  # fmt: skip


def nearest(word: object, options: Iterable[object]) -> str:
    """` Did you mean X?` for the option that `word` probably stands for; empty if there is none."""
    found = _nearest(str(word), list(map(str, options)))
    return f" Did you mean {found}?" if found else ""


def unknown_key(key: str, config: DictConfig, place: str = "") -> str:
    """The sentence for `key`, which `config` does not have: what was probably meant, then what
    there is. `place` is where the key stands."""
    content: dict[Any, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    path = key.split(".")[:-1]
    node = content
    for depth, name in enumerate(path):
        if not isinstance(node.get(name), dict):  # the group itself does not exist
            path = path[:depth]
            break
        node = node[name]
    group = ".".join(path) or "the config"
    keys = [str(name) for name in node if name != "hydra" and not str(name).startswith("_")]
    unknown = key.split(".")[len(path) :]
    sentence = f"{key} is not a key of {group}{place}.{_meant(key, unknown, keys, content)}"
    if keys:
        sentence += f" {group if path else 'The config'} has {', '.join(keys)}."
    if "_target_" in node and len(unknown) == 1 and path[0] != "hydra":
        sentence += how_to_add(group, unknown[0], node)
    return sentence


def _meant(key: str, unknown: list[str], siblings: list[str], content: dict[Any, Any]) -> str:
    """`unknown` are the parts of `key` that do not exist, `siblings` the keys that do."""
    known = dict(_flat(content))
    names = [name for name in known if name.startswith("hydra.") == key.startswith("hydra.")]
    if not key.startswith("hydra."):  # nobody has to know that sweepers are configured there
        names += [name for name in known if re.match(r"hydra\.(sweeper|launcher)\.", name)]
    # Facts of the dataset and references to other keys are rarely what somebody wants to set.
    names.sort(key=lambda name: name.startswith("dataset.") or str(known[name]).startswith("${"))
    leaves = {_normal(_leaf(name)): name for name in reversed(names)}
    for word in map(_normal, reversed(unknown)):
        if same := [name for name in names if word in (_normal(_leaf(name)), _normal(name))]:
            return f" Did you mean {' or '.join(same[:2])}?"
        if close := difflib.get_close_matches(word, map(_normal, siblings), n=1, cutoff=0.85):
            return nearest(close[0], siblings)
        if close := difflib.get_close_matches(word, leaves, n=1, cutoff=0.85):
            return f" Did you mean {leaves[close[0]]}?"
        if target := next((name for name in _of(KEYS, word) if name in known), None):
            return f" Did you mean {target}?"
        if sentence := next(_of(SENTENCES, word), None):
            return f" {sentence}"
        for name in [*_of(KEYS, word), word]:
            if elsewhere := _options_with(name, key, content):
                return elsewhere
    if found := nearest(unknown[0], siblings):
        return found
    close = difflib.get_close_matches(_normal(unknown[-1]), leaves, n=1, cutoff=0.75)
    return f" Did you mean {leaves[close[0]]}?" if close else ""


def _nearest(word: str, options: list[str]) -> str | None:
    known = {_normal(option): option for option in options}
    plain = _normal(word.partition(":")[0])  # cuda:0
    for name in (plain, *_of(VALUES, plain)):
        if name in known:
            return known[name]
    for close in difflib.get_close_matches(plain, known, n=3):
        # One letter of three is another name: tpu is no misspelt cpu, but mpl is a misspelt mlp.
        if len(plain) > 3 or len(close) != len(plain) or sorted(close) == sorted(plain):
            return known[close]
    return None


def _of(table: dict[str, str], word: str) -> Iterator[str]:
    """The entries of a table that list the normalised `word`."""
    return (name for name, words in table.items() if word in map(_normal, words.split()))


def _normal(word: str) -> str:
    return re.sub(r"[\W_]", "", word).lower()


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _flat(node: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All keys below `node` in full, groups included, with their values."""
    for name, value in node.items():
        if not str(name).startswith("_"):
            yield f"{prefix}{name}", value
            if isinstance(value, dict):
                yield from _flat(value, f"{prefix}{name}.")


def _options_with(name: str, key: str, content: dict[Any, Any]) -> str:
    """Says which options have the key `name`, given in full or by its normalised last part."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONFIG.rglob("*.yaml")):
        group = path.parent.relative_to(CONFIG).as_posix()
        if group.partition("/")[0] not in content or group in ("experiment", "debug", "sweep"):
            continue
        for full, _ in _own(path, group):
            if name in (full, _normal(_leaf(full))):
                found.setdefault(full, []).append(f"{group}={path.stem}")
    if not found:
        return ""
    full = key if key in found else next(iter(found))
    *others, last = found[full]
    has = f"{', '.join(others)} and {last} have" if others else f"{last} has"
    return f" Only {has} it." if full == key else f" Did you mean {full}, which {has}?"


@functools.cache
def _own(path: Path, group: str) -> list[tuple[str, Any]]:
    """The full keys that the YAML file of an option sets in its group, with their values."""
    try:
        content = yaml.load(text := path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except (ValueError, yaml.YAMLError):
        return []
    header = re.match(rf"# @package ({group}\.\S+)", text)
    own = content.get(group, content) if isinstance(content, dict) else {}
    return list(_flat(own, (header[1] if header else group.replace("/", ".")) + "."))
