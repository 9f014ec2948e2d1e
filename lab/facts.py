"""What a config may say of its dataset, and of how the images are used."""

import math

from omegaconf import DictConfig, ListConfig

from lab.require import require, require_one_of

MAX_VALUES = 2**24  # of an image, 4096 × 4096 in grey: a model is tried on two of them
MAX_COUNT = 2**31 - 1  # of images or pixels; torch counts in 64 bits
COUNT = f"a whole number of at least 1 and at most {MAX_COUNT}"


def check_facts(cfg: DictConfig) -> None:
    """Raises ConfigError for a fact of the dataset that is impossible."""
    facts = cfg.dataset
    for key in ("in_channels", "image_size", "patch_size", "num_classes", "train_size", "repeats"):
        require(cfg, f"dataset.{key}", 1 <= facts[key] <= MAX_COUNT, COUNT)
    few = facts.in_channels * facts.image_size**2 <= MAX_VALUES
    allowed = f"so small that an image has at most {MAX_VALUES} values, in all channels"
    require(cfg, "dataset.image_size", few, allowed)
    valid = facts.margin is None or 0 <= 2 * facts.margin < facts.image_size
    require(cfg, "dataset.margin", valid, "0 or more pixels, less than half of image_size, or null")
    for key in ("classes", "mean", "std"):  # OmegaConf lets lists within lists pass
        is_flat = not any(isinstance(item, ListConfig | DictConfig) for item in facts[key])
        require(cfg, f"dataset.{key}", is_flat, "a list of single values")
    words = "a list of words: YAML reads yes, no, on and off as true and false unless in quotes"
    require(cfg, "dataset.classes", all(type(name) in (str, int) for name in facts.classes), words)
    require(cfg, "dataset.classes", len(facts.classes) == facts.num_classes, "one name per class")
    for key in ("mean", "std"):
        is_whole = len(facts[key]) == facts.in_channels
        require(cfg, f"dataset.{key}", is_whole, "one value per channel")
    require(cfg, "dataset.mean", all(map(math.isfinite, facts.mean)), "a list of finite numbers")
    valid = all(0 < std < math.inf for std in facts.std)
    require(cfg, "dataset.std", valid, "a list of numbers above 0")


def check_use(cfg: DictConfig) -> None:
    """Raises ConfigError for a use of the images that is impossible."""
    most = cfg.dataset.train_size
    allowed = f"a fraction below 1, or a whole number of images below {most}"
    valid = 0 <= cfg.val_size < most and (cfg.val_size < 1 or cfg.val_size % 1 == 0)
    require(cfg, "val_size", valid, allowed)
    require_one_of(cfg, "on_bad_image", ("refuse", "skip"))
    valid = cfg.class_weights in (None, "balanced")
    require(cfg, "class_weights", valid, "balanced, or null, where all images count the same")
    valid = cfg.folds is None or 2 <= cfg.folds <= most
    require(cfg, "folds", valid, f"null or a whole number from 2 to {most}, the training images")
    if cfg.folds is None:
        require(cfg, "fold", cfg.fold is None, "null unless folds=N says how many there are")
    else:
        last = cfg.folds - 1
        valid = cfg.fold is not None and 0 <= cfg.fold <= last
        require(cfg, "fold", valid, f"a whole number from 0 to {last}, since folds={cfg.folds}")
