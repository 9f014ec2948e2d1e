"""Build what the config names: models, optimizers, schedulers."""

import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from lab.errors import ConfigError, explain, nearest


def build(cfg: DictConfig, group: str, *args: Any, **known: Any) -> Any:
    """Instantiate a config group; with `args`, call the `_partial_` that it gives.

    `known` are values of the config that are not known before the run, like `total_steps`, to which
    the group may refer. Raises ConfigError if the class does not exist or refuses its arguments.
    """
    node = OmegaConf.merge(cfg, known)[group]
    try:
        built = instantiate(node)
        return built(*args) if args else built
    except Exception as error:  # whatever a constructor raises
        cause = error.__cause__ or error if isinstance(error, InstantiationException) else error
        target = node.get("_target_")
        if isinstance(cause, TypeError) and "unexpected keyword argument" in str(cause):
            wrong = str(cause).split("'")[-2]
            allowed = list(inspect.signature(get_object(target)).parameters)
            raise ConfigError(
                f"{group}.{wrong} is not an argument of {target}.{nearest(wrong, allowed)}"
            ) from error
        reason = explain(cause) or str(cause).partition("\n")[0]
        raise ConfigError(f"{group} ({target}): {reason}") from error
