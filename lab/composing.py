"""The configs of many jobs, composed fast: what several of them have in common is composed once.

Hydra needs a tenth of a second for a config: it reads the files, follows their defaults lists and
merges them. All of that depends on the options of groups alone, and comes before the overrides of
single values, in which most jobs of a sweep differ.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import DefaultsList, Overrides
from omegaconf import DictConfig, OmegaConf

MOST = 64  # choices of options, whose configs take 0.1 MB each


@contextmanager
def composed_once() -> Iterator[None]:
    """Within the context, the files in config/ are read once for each choice of options, as long as
    there are no more than MOST: later jobs with the same options get what the files said then."""
    lists: dict[str, DefaultsList] = {}
    merged: dict[int, DictConfig] = {}  # by the id of the list in `lists`
    plain = set[str | None]()  # primary configs that set no hydra.searchpath

    def search(self: ConfigLoaderImpl, name: str | None, overrides: list, repo: Any) -> None:
        if name in plain and all(word.key_or_group != "hydra.searchpath" for word in overrides):
            return
        originals["_process_config_searchpath"](self, name, overrides, repo)
        if name and not OmegaConf.select(repo.load_config(name).config, "hydra.searchpath"):
            plain.add(name)

    def follow(repo: Any, config_name: str | None, overrides_list: list, **how: Any) -> Any:
        groups = [
            word.input_line for word in overrides_list if repo.group_exists(word.key_or_group)
        ]
        key = repr((config_name, groups, [source.path for source in repo.get_sources()], how))
        if key not in lists:
            if len(lists) == MOST:
                lists.clear()
                merged.clear()
            lists[key] = originals["create_defaults_list"](repo, config_name, overrides_list, **how)
        own = Overrides(repo, overrides_list).config_overrides
        return replace(lists[key], config_overrides=own)

    def merge(self: ConfigLoaderImpl, defaults: list, repo: Any) -> DictConfig:
        if id(defaults) not in merged:
            merged[id(defaults)] = originals["_compose_config_from_defaults_list"](
                self, defaults, repo
            )
        return copy.deepcopy(merged[id(defaults)])

    places = {
        "_process_config_searchpath": (ConfigLoaderImpl, search),
        "create_defaults_list": (config_loader_impl, follow),
        "_compose_config_from_defaults_list": (ConfigLoaderImpl, merge),
    }
    originals = {name: getattr(owner, name) for name, (owner, _) in places.items()}
    try:
        for name, (owner, function) in places.items():
            setattr(owner, name, function)
        yield
    finally:
        for name, (owner, _) in places.items():
            setattr(owner, name, originals[name])
