"""What options of training may say."""

import math

from omegaconf import DictConfig

from lab.require import require


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
