"""The settings of a search, `hydra.sweeper` in the config, checked before it starts."""

import importlib.util

from omegaconf import DictConfig

from lab.errors import ConfigError, Refusal, nearest

PER_EPOCH = ("val_accuracy", "val_loss")  # what is known after every epoch
AX_METHODS = ("fast", "quality", "random_search")


def check(config: DictConfig) -> None:
    """Raises Refusal for settings that no search can have, or if a package is missing."""
    settings = config.hydra.sweeper
    if not importlib.util.find_spec(settings.backend):
        raise Refusal(
            f"hydra/sweeper={settings.backend} needs a package that is not installed: "
            "pip install -r env/requirements-search.txt"
        )
    chosen = config.hydra.runtime.choices["hydra/sweeper"]
    if chosen not in (settings.backend, "resumable"):  # the default, which recipes do not override
        raise ConfigError(
            f"hydra/sweeper={chosen} is not allowed beside a recipe that searches with "
            f"{settings.backend}: leave it out, or choose a recipe for {chosen}."
        )
    if settings.get("method", "fast") not in AX_METHODS:
        raise ConfigError(
            f"hydra.sweeper.method={settings.method} is not allowed: use one of "
            f"{', '.join(AX_METHODS)}.{nearest(settings.method, AX_METHODS)}"
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
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ConfigError(f"hydra.sweeper.max_failure_rate={rate} is not a share from 0 to 1.")
    if config.get("fail_fast"):
        raise ConfigError(
            "fail_fast=true is for a grid: for a search, set hydra.sweeper.max_failure_rate=0."
        )
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
