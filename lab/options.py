"""What options of training may say."""

import math

from omegaconf import DictConfig

from lab.errors import ConfigError
from lab.require import require, require_one_of

MOST_PROFILED = 1000  # steps; a trace of more is too large for a browser


def check_options(cfg: DictConfig) -> None:
    """Raises ConfigError for an option of training that is out of range."""
    changes, channels = cfg.augmentation, cfg.dataset.in_channels
    valid = 0 <= changes.cutout <= 1
    require(cfg, "augmentation.cutout", valid, "a share of the image's side, 0 to 1")
    for key in ("mixup", "cutmix"):
        valid = 0 <= changes[key] < math.inf and (cfg.batch_size > 1 or not changes[key])
        allowed = "0 or more, and 0 if batch_size=1, since two images of a batch are mixed"
        require(cfg, f"augmentation.{key}", valid, allowed)
    valid = 0 <= changes.randaugment <= 14 and (channels in (1, 3) or not changes.randaugment)
    allowed = "a number of operations from 0 to 14, and 0 unless images have 1 or 3 channels"
    require(cfg, "augmentation.randaugment", valid, allowed)
    require(cfg, "augmentation.magnitude", 0 <= changes.magnitude <= 30, "0 to 30")
    valid = cfg.ema is None or 0 < cfg.ema < 1
    require(cfg, "ema", valid, "null, or above 0 and below 1, as 0.999 is")


def check_how(cfg: DictConfig) -> None:
    """Raises ConfigError for a value that concerns how a job runs, and that is out of range."""
    require_one_of(cfg, "checkpoint.unit", ("epochs", "seconds"))
    every, is_whole = cfg.checkpoint.every, cfg.checkpoint.every % 1 == 0
    valid = every > 0 and (is_whole or cfg.checkpoint.unit == "seconds")
    require(cfg, "checkpoint.every", valid, "above 0, and a whole number of epochs")
    valid = cfg.profile is None or 1 <= cfg.profile <= MOST_PROFILED
    require(cfg, "profile", valid, f"null, or a number of steps from 1 to {MOST_PROFILED}")
    valid = not cfg.memorise or cfg.val_size == 0
    require(cfg, "memorise", valid, "false unless val_size=0, which validates on training images")
    for name, tracker in cfg.logger.items():
        if not isinstance(tracker, DictConfig) or not isinstance(tracker.get("_target_"), str):
            raise ConfigError(
                f"logger.{name}={tracker} is not allowed: it must name a class with _target_, as "
                "the files in config/logger/ do."
            )
