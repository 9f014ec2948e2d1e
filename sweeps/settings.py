"""The settings of a search, `hydra.sweeper` in the config, checked before it starts."""

import importlib.util
from collections.abc import Mapping

from omegaconf import DictConfig, ListConfig

from lab.errors import ConfigError, Refusal
from lab.hints import nearest

PER_EPOCH = ("val_accuracy", "val_loss")  # what is known after every epoch
AX_METHODS = ("fast", "quality", "random_search")


def check_params(params: object) -> None:
    """Raises ConfigError unless `hydra.sweeper.params` maps keys to values."""
    if not isinstance(params, Mapping | None):
        raise ConfigError(
            f"hydra.sweeper.params={params} is not allowed: it must have a line KEY: VALUES for "
            "each key that is swept."
        )


def check(config: DictConfig) -> None:
    """Raises Refusal for settings that no search can have, or if a package is missing."""
    settings = config.hydra.sweeper
    check_params(settings.params)
    for key, options in {"backend": ("optuna", "ax"), "method": AX_METHODS}.items():
        if (value := settings.get(key, options[0])) not in options:
            raise ConfigError(
                f"hydra.sweeper.{key}={value} is not allowed: use one of {', '.join(options)}."
                f"{nearest(value, options)}"
            )
    for key in ("objectives", "directions"):
        value = settings[key]
        if not isinstance(value, ListConfig) or not all(isinstance(name, str) for name in value):
            raise ConfigError(
                f"hydra.sweeper.{key}={value} is not allowed: it must be a list of words."
            )
    for key in ("storage", "study"):
        if not isinstance(value := settings.get(key), str | None):
            raise ConfigError(f"hydra.sweeper.{key}={value} is not allowed: it must be text.")
    if settings.backend == "optuna" and not isinstance(settings.sampler, DictConfig):
        raise ConfigError(
            f"hydra.sweeper.sampler={settings.sampler} is not allowed: choose one with "
            "hydra/sweeper/sampler=NAME."
        )
    if not importlib.util.find_spec(settings.backend):
        raise Refusal(
            f"hydra/sweeper={settings.backend} needs a package that is not installed: "
            "pip install -r env/requirements-search.txt"
        )
    chosen = config.hydra.runtime.choices["hydra/sweeper"]
    if chosen not in (settings.backend, "resumable"):  # the default, which recipes do not override
        raise ConfigError(
            f"hydra/sweeper={chosen} conflicts with a recipe that searches with "
            f"{settings.backend}: leave it out, or choose a recipe for {chosen}."
        )
    whole = {"n_trials": 1, "parallel": 1, "seed": 0}
    for key, least in whole.items():
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                f"hydra.sweeper.{key}={value} is not allowed: it must be a whole number of at "
                f"least {least}."
            )
    rate = settings.max_failure_rate
    if type(rate) not in (int, float) or not 0 <= rate <= 1:
        raise ConfigError(f"hydra.sweeper.max_failure_rate={rate} is not a share from 0 to 1.")
    if config.get("fail_fast"):
        raise ConfigError(
            "fail_fast=true is for a grid: for a search, set hydra.sweeper.max_failure_rate=0."
        )
    _check_objectives(settings)


def _check_objectives(settings: DictConfig) -> None:
    """Raises ConfigError for objectives that are impossible."""
    objectives, directions = list(settings.objectives), list(settings.directions)
    if tests := [name for name in objectives if name.startswith("test_")]:
        raise ConfigError(
            f"hydra.sweeper.objectives={objectives} is not allowed: {tests[0]} would select on the "
            "test images, whose accuracy would then no longer be an unbiased estimate."
        )
    if settings.get("pruner") and (len(objectives) > 1 or objectives[0] not in PER_EPOCH):
        raise ConfigError(
            f"hydra/sweeper/pruner needs one objective that is known after every epoch, "
            f"{' or '.join(PER_EPOCH)}, not hydra.sweeper.objectives={objectives}."
        )
    known = {"maximize", "minimize"}
    if not objectives or len(objectives) != len(directions) or set(directions) - known:
        raise ConfigError(
            f"hydra.sweeper.directions={directions} must say maximize or minimize for each of "
            f"hydra.sweeper.objectives={objectives}."
        )
