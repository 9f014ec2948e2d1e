"""What a config may say: the types of its keys and the values that are allowed.

Nothing here imports torch, so a mistyped command is answered at once.
"""

import inspect
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

from config.errors import ConfigError, explain, nearest

# What a config from somebody else's run folder may name: classes, never functions of a module.
FOREIGN_TARGETS = re.compile(
    r"(models|datasets|torch\.optim|torch\.optim\.lr_scheduler|torchvision\.datasets)\.[A-Z]\w*"
)
REFERENCE = re.compile(r"\$\{[a-z_]+(\.[a-z_]+)*\}")  # to another key; no resolver, no path
# Where and how a job runs, not what it computes: a sweep that is given again may change these.
NOT_THE_EXPERIMENT = ("name", "fail_fast", "data_dir", "checkpoint", "trial")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass
class Dataset:
    """Facts of a data set; models read theirs from here by interpolation."""

    source: Any = MISSING  # a torchvision dataset class (`_target_`) with `.data` and `.targets`
    in_channels: int = MISSING
    image_size: int = MISSING  # pixels; images are square
    patch_size: int = MISSING  # pixels; what a vision transformer cuts them into
    margin: int = MISSING  # pixels of background around what is shown
    num_classes: int = MISSING
    classes: list[str] = MISSING
    mean: list[float] = MISSING  # per channel, black 0 and white 1
    std: list[float] = MISSING
    shift: int = MISSING  # pixels that an image may be moved by without losing its class
    mirror: bool = MISSING  # whether a mirrored image keeps its class
    train_size: int = MISSING  # images, before the validation slice is taken off


@dataclass
class Augmentation:
    """Random changes of the training images (`data.Augmentation`)."""

    shift: int = MISSING
    mirror: bool = MISSING


@dataclass
class Shrink:
    """Progressive resizing: the first epochs see smaller images."""

    share: float = MISSING
    factor: float = MISSING


@dataclass
class Checkpoint:
    """How often `last.pt` is saved."""

    every: float = MISSING
    unit: str = MISSING


@dataclass
class Config:
    """The whole config. Values and their reasons stand in the YAML files, only types stand here."""

    dataset: Dataset = MISSING
    augmentation: Augmentation = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    val_size: float = MISSING
    limit: int | None = MISSING
    label_smoothing: float = MISSING
    grad_clip: float | None = MISSING
    shrink: Shrink = MISSING
    skip_easy: float = MISSING
    seed: int = MISSING
    device: str = MISSING
    precision: str = MISSING
    compile: Any = MISSING  # a truth value, or auto
    deterministic: bool = MISSING
    data_dir: str | None = MISSING
    checkpoint: Checkpoint = MISSING
    name: str = MISSING
    fail_fast: bool = MISSING
    trial: int | None = None  # younger than many a run folder
    total_steps: int | None = MISSING


ConfigStore.instance().store(name="schema", node=Config)


def _itself(_: dict[int, Any]) -> ConfigStore:
    return ConfigStore.instance()


# --help asks for the options of every group, and for each Hydra copies its store of configs, though
# what it takes out of the store is a copy already: half of the time of --help.
ConfigStore.instance().__deepcopy__ = _itself


def check(cfg: DictConfig) -> None:
    """Refuse values that no run can use. Raises ConfigError, before any data is read."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{missing[0]}=??? is not allowed: it must have a value.")
    # Types again: +key=value adds what the schema does not know, a reference may lead to anything.
    typed(OmegaConf.to_container(cfg, resolve=True))
    for group in ("model", "optimizer", "scheduler", "dataset.source"):
        node = OmegaConf.select(cfg, group)
        if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
            raise ConfigError(f"{group}={node} is not allowed: it must name a class by _target_.")
    _require(cfg, "epochs", cfg.epochs >= 1, "a whole number of at least 1")
    _require(cfg, "batch_size", cfg.batch_size >= 1, "a whole number of at least 1")
    _require(cfg, "limit", cfg.limit is None or cfg.limit >= 1, "null or at least 1 image")
    _require(cfg, "seed", 0 <= cfg.seed < 2**32, "a whole number from 0 to 4294967295")
    _require(cfg, "label_smoothing", 0 <= cfg.label_smoothing < 1, "at least 0 and below 1")
    _require(cfg, "grad_clip", cfg.grad_clip is None or cfg.grad_clip > 0, "null or above 0")
    _require(cfg, "augmentation.shift", cfg.augmentation.shift >= 0, "0 or more pixels")
    _require(cfg, "shrink.share", 0 <= cfg.shrink.share <= 1, "a share of the epochs, 0 to 1")
    _require(cfg, "shrink.factor", 0 < cfg.shrink.factor <= 1, "above 0 and at most 1")
    _require(cfg, "skip_easy", 0 <= cfg.skip_easy <= 1, "a share of the images, 0 to 1")
    size = cfg.dataset.image_size
    _require(cfg, "shrink.factor", cfg.shrink.factor * size >= 1, f"at least 1/{size}, one pixel")
    _require_one_of(cfg, "device", DEVICES)
    _require_one_of(cfg, "precision", PRECISIONS)
    _require(cfg, "compile", cfg.compile in ("auto", True, False), "auto, true or false")
    learning_rate = cfg.optimizer.get("lr", 1.0)
    valid = isinstance(learning_rate, int | float) and 0 < learning_rate < math.inf
    _require(cfg, "optimizer.lr", valid, "a number above 0")
    _require(
        cfg,
        "val_size",
        0 <= cfg.val_size < cfg.dataset.train_size,
        f"a fraction below 1 or a number of images below {cfg.dataset.train_size}, all there are",
    )
    _require_one_of(cfg, "checkpoint.unit", ("epochs", "seconds"))
    whole = cfg.checkpoint.unit == "seconds" or cfg.checkpoint.every % 1 == 0
    _require(cfg, "checkpoint.every", cfg.checkpoint.every > 0 and whole, "above 0, epochs whole")
    facts = cfg.dataset
    _require(cfg, "dataset.classes", len(facts.classes) == facts.num_classes, "one name per class")
    _require(cfg, "dataset.mean", len(facts.mean) == facts.in_channels, "one value per channel")
    _require(cfg, "dataset.std", len(facts.std) == facts.in_channels, "one value per channel")


def typed(config: DictConfig | dict[str, Any]) -> DictConfig:
    """A config with the types of the schema. Raises OmegaConf's ValidationError."""
    return OmegaConf.merge(OmegaConf.structured(Config), config)


def check_foreign(config: dict[str, Any], source: Path) -> None:
    """Refuse, by ConfigError, a run folder's config that could do more than describe a run."""
    known = {field.name for field in fields(Config)}
    if unknown := sorted(map(str, config.keys() - known)):
        raise ConfigError(f"{source} is not the config of a run: {unknown[0]} is not a key of one.")
    needed = {field.name for field in fields(Config) if field.default == MISSING}
    if missing := sorted(needed - config.keys()):
        raise ConfigError(f"{source} is not the config of a run: {missing[0]} is missing.")
    nodes: list[Any] = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            target = node.get("_target_")
            if target is not None and not FOREIGN_TARGETS.fullmatch(str(target)):
                raise ConfigError(f"{source} names _target_={target}, which a run folder must not.")
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
        elif isinstance(node, str) and not _is_plain(node):
            raise ConfigError(f"{source} says {node!r}, which a run folder must not.")


def _is_plain(text: str) -> bool:
    """Whether a string neither calls a resolver nor climbs out of a folder."""
    return REFERENCE.fullmatch(text) or ("${" not in text and ".." not in Path(text).parts)


def _require(cfg: DictConfig, key: str, holds: bool, allowed: str) -> None:
    if not holds:
        value = OmegaConf.select(cfg, key)
        raise ConfigError(f"{key}={value} is not allowed: it must be {allowed}.")


def _require_one_of(cfg: DictConfig, key: str, options: tuple[str, ...]) -> None:
    value = OmegaConf.select(cfg, key)
    if value not in options:
        hint = nearest(value, options)
        raise ConfigError(f"{key}={value} is not allowed: use one of {', '.join(options)}.{hint}")


def build(cfg: DictConfig, group: str, *args: Any) -> Any:
    """Instantiate a config group; with `args`, call the `_partial_` that it gives.

    Raises ConfigError where the class does not exist or refuses what the config says.
    """
    try:
        built = instantiate(cfg[group])
        return built(*args) if args else built
    except (InstantiationException, TypeError, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error if isinstance(error, InstantiationException) else error
        target = cfg[group].get("_target_")
        if isinstance(cause, TypeError) and "unexpected keyword argument" in str(cause):
            wrong = str(cause).split("'")[-2]
            allowed = list(inspect.signature(get_object(target)).parameters)
            raise ConfigError(
                f"{group}.{wrong} is not an argument of {target}.{nearest(wrong, allowed)}"
            ) from error
        reason = explain(cause) or str(cause).partition("\n")[0]
        raise ConfigError(f"{group} ({target}): {reason}") from error
