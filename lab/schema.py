"""What a config may contain: the types of its keys and the values that are allowed.

Nothing here imports torch, so a mistyped command is refused at once.
"""

import math
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from lab.errors import ConfigError, nearest

# Where and how a job runs, not what it computes: a sweep that is resumed may change these.
NOT_THE_EXPERIMENT = ("name", "fail_fast", "data_dir", "checkpoint", "trial")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass
class Dataset:
    """Facts of a dataset; models read them by interpolation."""

    source: Any = MISSING  # a torchvision dataset class (`_target_`) with `.data` and `.targets`
    in_channels: int = MISSING
    image_size: int = MISSING  # pixels; images are square
    patch_size: int = MISSING  # pixels; the patches of a vision transformer
    margin: int = MISSING  # pixels of background around the object
    num_classes: int = MISSING
    classes: list[str] = MISSING
    mean: list[float] = MISSING  # per channel, black 0 and white 1
    std: list[float] = MISSING
    shift: int = MISSING  # pixels by which an image may be moved and keep its class
    mirror: bool = MISSING  # whether a mirrored image keeps its class
    train_size: int = MISSING  # training images, including those set aside for validation


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
    """The whole config. The YAML files hold the values and their reasons, this class the types."""

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
    compile: Any = MISSING  # true, false or auto
    deterministic: bool = MISSING
    data_dir: str | None = MISSING
    checkpoint: Checkpoint = MISSING
    name: str = MISSING
    fail_fast: bool = MISSING
    trial: int | None = None  # older run folders do not have it
    total_steps: int | None = MISSING


ConfigStore.instance().store(name="schema", node=Config)


def check(cfg: DictConfig) -> None:
    """Raises ConfigError for a value that no run can use."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{missing[0]}=??? is not allowed: it must have a value.")
    # Types once more: +key=value adds unknown keys, and a reference may lead to any type.
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


def _require(cfg: DictConfig, key: str, holds: bool, allowed: str) -> None:
    if not holds:
        value = OmegaConf.select(cfg, key)
        raise ConfigError(f"{key}={value} is not allowed: it must be {allowed}.")


def _require_one_of(cfg: DictConfig, key: str, options: tuple[str, ...]) -> None:
    value = OmegaConf.select(cfg, key)
    if value not in options:
        hint = nearest(value, options)
        raise ConfigError(f"{key}={value} is not allowed: use one of {', '.join(options)}.{hint}")
