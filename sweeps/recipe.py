"""What a recipe of config/sweep/ sets, as overrides: a single run does not take sweep=RECIPE."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab.command_line import is_of_a_sweep
from lab.overrides import escaped
from lab.schema import NOT_THE_EXPERIMENT


def expanded(overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> list[str]:
    """Overrides of a single run with the config that `overrides`, of a sweep, compose."""
    own = [override for override in overrides if not is_of_a_sweep(override)]
    if not any(override.lstrip("+").startswith("sweep=") for override in overrides):
        return own
    wanted, found = compose(list(overrides)), compose(own)
    before = found.hydra.runtime.choices
    for group, option in wanted.hydra.runtime.choices.items():
        is_ours = group != "sweep" and not group.startswith("hydra/")
        if is_ours and option is not None and option != before.get(group):
            own.append(f"{group}={option}")
    known = dict(_leaves(compose(own)))
    for key, value in _leaves(wanted):
        if key not in known or known[key] != value:
            own.append(f"{'' if key in known else '+'}{key}={value}")
    return own


def _leaves(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """The keys of a config in full, with their values as Hydra's command line has them."""
    content: dict[Any, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    nodes = [(key, content[key]) for key in content if key not in ("hydra", *NOT_THE_EXPERIMENT)]
    while nodes:
        key, value = nodes.pop(0)
        if isinstance(value, dict) and value:
            nodes = [(f"{key}.{name}", value[name]) for name in value] + nodes
        elif isinstance(value, str):
            yield key, escaped(value)
        else:
            yield key, json.dumps(value, ensure_ascii=False, separators=(",", ":"))
