"""What a config may contain: the types of its keys and the values that are allowed.

Nothing here imports torch, so a mistyped command is refused at once.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from lab.errors import ConfigError
from lab.facts import COUNT, MAX_COUNT, check_facts, check_use
from lab.options import check_how, check_options
from lab.require import require as _require
from lab.require import require_one_of as _require_one_of

# Where and how a job runs, not what it computes: a sweep that is resumed may change these.
NOT_THE_EXPERIMENT = ("name", "fail_fast", "data_dir", "checkpoint", "trial")
NOT_THE_EXPERIMENT += ("logger", "profile", "memorise")
# Keys that configs did not have at first, and what a config without them means.
ADDED = {"dataset.repeats": 1, "augmentation.randaugment": 0, "augmentation.magnitude": 9}
ADDED |= {
    "scheduler.interval": "step",
    "dataset.target_offset": 0,
    "dataset.transpose": False,
    "on_bad_image": "refuse",
}
ADDED |= {f"augmentation.{key}": 0.0 for key in ("cutout", "mixup", "cutmix")}
ADDED |= dict.fromkeys(("ema", "init_from", "optimizer.lr", "class_weights", "fold", "folds"))
ADDED |= dict.fromkeys(("dataset.train", "dataset.test", "dataset.val"))
DEVICES = ("auto", "cpu", "cuda", "mps")  # and cuda:N
PRECISIONS = ("auto", "fp32", "bf16")
MAX_EPOCHS = 1_000_000  # each takes a millisecond at least, and rewrites the figures of all before
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass
class Dataset:
    """Facts of a dataset; models read them by interpolation."""

    source: Any = MISSING  # a dataset class (`_target_`) with data and targets, or with items
    train: dict[str, Any] | None = None  # asks for the training images; null: {train: true}
    test: dict[str, Any] | None = None  # asks for the test images; null: {train: false}
    val: dict[str, Any] | None = None  # asks for validation images, if the source has its own
    in_channels: int = MISSING
    image_size: int = MISSING  # pixels; images are square
    patch_size: int = MISSING  # pixels; the patches of a vision transformer
    margin: int | None = MISSING  # pixels of background around the object; null: not adapted
    num_classes: int = MISSING
    classes: list[Any] = MISSING  # text or whole numbers
    mean: list[float] = MISSING  # per channel, black 0 and white 1
    std: list[float] = MISSING
    shift: int = MISSING  # pixels by which an image may be moved and keep its class
    mirror: bool = MISSING  # whether a mirrored image keeps its class
    train_size: int = MISSING  # training images, including those set aside for validation
    repeats: int = 1  # how often an epoch shows each image
    target_offset: int = 0  # the label of the first class
    transpose: bool = False  # whether the files have rows and columns exchanged


@dataclass
class Augmentation:
    """Random changes of the training images (`lab.augmentation`); each option sets some."""

    shift: int = 0
    mirror: bool = False
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    magnitude: int = 9


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
    optimizer: Any = field(default_factory=lambda: {"lr": None})  # null: the default of its class
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
    total_steps: int | None = MISSING
    # Older run folders do not have these.
    trial: int | None = None
    ema: float | None = None
    init_from: str | None = None
    on_bad_image: str = "refuse"
    class_weights: str | None = None
    fold: int | None = None
    folds: int | None = None
    logger: dict[str, Any] = field(default_factory=dict)  # trackers by their names
    profile: int | None = None
    memorise: bool = False


SCHEMA = OmegaConf.structured(Config)
ConfigStore.instance().store(name="schema", node=Config)


def check(cfg: DictConfig) -> None:
    """Raises ConfigError for a value that no run can use."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{missing[0]}=??? is not allowed: it must have a value.")
    # Types again: +key=value adds unknown keys, and a reference may lead to any type.
    typed(OmegaConf.to_container(cfg, resolve=True))
    for group in ("model", "optimizer", "scheduler", "dataset.source"):
        _require_class(cfg, group)
    check_facts(cfg)
    check_use(cfg)
    _require_numbers(cfg)
    if not re.fullmatch(r"cuda:\d+", cfg.device):
        _require_one_of(cfg, "device", DEVICES)
    _require_one_of(cfg, "precision", PRECISIONS)
    _require(cfg, "compile", cfg.compile in ("auto", True, False), "auto, true or false")
    if "interval" in cfg.scheduler:  # Lightning's word; without it, a scheduler is stepped per step
        _require_one_of(cfg, "scheduler.interval", ("step", "epoch"))
    if "monitor" in cfg.scheduler:
        _require_one_of(cfg, "scheduler.monitor", ("train_loss", "val_loss", "val_accuracy"))
    learning_rate = OmegaConf.select(cfg, "optimizer.lr")
    if text := [said for said in text_numbers(cfg.optimizer, "optimizer") if ".lr=" in said]:
        raise ConfigError(text[0])
    valid = type(learning_rate) in (int, float) and 0 < learning_rate < math.inf
    valid = valid or learning_rate is None
    _require(cfg, "optimizer.lr", valid, "a number above 0, or null, which is the class's own")
    check_how(cfg)


def _require_numbers(cfg: DictConfig) -> None:
    """Raises ConfigError for a number that is out of range."""
    facts, shrink = cfg.dataset, cfg.shrink
    allowed = f"a whole number of at least 1 and at most {MAX_EPOCHS}"
    _require(cfg, "epochs", 1 <= cfg.epochs <= MAX_EPOCHS, allowed)
    _require(cfg, "batch_size", 1 <= cfg.batch_size <= MAX_COUNT, COUNT)
    valid = cfg.limit is None or 1 <= cfg.limit <= MAX_COUNT
    _require(cfg, "limit", valid, f"null or {COUNT}")
    _require(cfg, "seed", 0 <= cfg.seed < 2**32, "a whole number from 0 to 4294967295")
    _require(cfg, "label_smoothing", 0 <= cfg.label_smoothing < 1, "at least 0 and below 1")
    _require(cfg, "grad_clip", cfg.grad_clip is None or cfg.grad_clip > 0, "null or above 0")
    size = facts.image_size
    for key in ("augmentation.shift", "dataset.shift"):
        valid = 0 <= OmegaConf.select(cfg, key) < size
        _require(cfg, key, valid, f"0 or more pixels, fewer than the {size} of an image")
    check_options(cfg)
    _require(cfg, "shrink.share", 0 <= shrink.share <= 1, "a share of the epochs, 0 to 1")
    _require(cfg, "shrink.factor", 0 < shrink.factor <= 1, "above 0 and at most 1")
    _require(cfg, "shrink.factor", shrink.factor * size >= 1, f"at least 1/{size}, one pixel")
    _require(cfg, "skip_easy", 0 <= cfg.skip_easy <= 1, "a share of the images, 0 to 1")


def _require_class(cfg: DictConfig, group: str) -> None:
    """Raises ConfigError for a group that does not name a class as script.py needs it."""
    node = OmegaConf.select(cfg, group)
    if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
        raise ConfigError(
            f"{group}={node} is not allowed: it must name a class with _target_. A file in config/ "
            f"that sets more than {group} starts with '# @package _global_'."
        )
    partial = {"optimizer": "the parameters", "scheduler": "the optimizer"}.get(group)
    if partial and node.get("_partial_") is not True:
        raise ConfigError(
            f"{group}._partial_={node.get('_partial_')} is not allowed: script.py passes {partial} "
            f"later, so the {group}'s file must say _partial_: true."
        )
    if group == "model" and node.get("_partial_"):
        raise ConfigError("model._partial_=true is not allowed: leave it out of the model's file.")


def text_numbers(node: DictConfig | ListConfig, group: str) -> list[str]:
    """A sentence for each value of a group that is a number in quotes."""
    sentences = []
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        value = node[key]
        name = f"{group}[{key}]" if isinstance(key, int) else f"{group}.{key}"
        if isinstance(value, DictConfig | ListConfig):
            sentences += text_numbers(value, name)
        elif isinstance(value, str) and NUMBER.fullmatch(value.strip()) and str(key)[0] != "_":
            advice = "without quotes it is a number"
            if "${oc.env" in str(OmegaConf.to_container(node, resolve=False)):
                advice = (
                    'as environment variables always are: write "${oc.decode:${oc.env:NAME}}", '
                    "quotes included"
                )
            sentences.append(f"{name}={value!r} is text: {advice}.")
    return sentences


def check_free(cfg: DictConfig) -> None:
    """Raises ConfigError for a value that is given although the run sets it."""
    if cfg.total_steps is not None:
        raise ConfigError(
            f"total_steps={cfg.total_steps} has no effect, since the steps follow from epochs, "
            "batch_size and the number of images: set epochs, and leave it at total_steps=null."
        )


def typed(config: DictConfig | dict[str, Any]) -> DictConfig:
    """A config with the types of the schema. Raises OmegaConf's ValidationError."""
    return OmegaConf.merge(SCHEMA, config)


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """`{a: {b: 1}}` as `{"a.b": "1"}`. A null value is the same as a missing key, and so is what
    ADDED says a missing key means."""
    leaves: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        elif value is not None and value != ADDED.get(f"{prefix}{key}"):
            leaves[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return leaves
