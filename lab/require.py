"""Checks of single values of a config, as sentences."""

from omegaconf import DictConfig, OmegaConf

from lab.errors import ConfigError
from lab.hints import nearest


def require(cfg: DictConfig, key: str, holds: bool, allowed: str) -> None:
    """Raises ConfigError unless the value of `key` is as it must be."""
    if not holds:
        value = OmegaConf.select(cfg, key)
        raise ConfigError(f"{key}={value} is not allowed: it must be {allowed}.")


def require_one_of(cfg: DictConfig, key: str, options: tuple[str, ...]) -> None:
    """Raises ConfigError for a value that is not one of the options."""
    value = OmegaConf.select(cfg, key)
    if value not in options:
        hint = nearest(value, options)
        raise ConfigError(f"{key}={value} is not allowed: use one of {', '.join(options)}.{hint}")
