"""Hydra composes a config from some twenty files, in 0.1 s; the tests do it about a thousand times.

`remember` makes that a fifth: Hydra then remembers what it has read and merged, while the content
of the files is the same. What it remembers is pickled, since whoever gets a config may change it.
Errors are not remembered. And OmegaConf copies values in a quarter of the time.

Tests that start a process take Hydra and OmegaConf as they are.
"""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import AnyNode, BooleanNode, DictConfig, FloatNode, IntegerNode, StringNode

read: dict[tuple, tuple[Any, bytes]] = {}  # content and result, by place
merged: dict[tuple, bytes] = {}


def remember() -> None:
    """Change Hydra so, in this process."""
    load, merge = ConfigRepository.load_config, ConfigLoaderImpl._compose_config_from_defaults_list

    def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        return remembered_file(self, config_path, load)

    def compose(
        self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: CachingConfigRepository
    ) -> DictConfig:
        files = [repo.load_config(default.config_path) for default in defaults]
        if not all(hasattr(file, "pickled") for file in files):
            return merge(self, defaults, repo)
        keys = [
            (default.config_path, default.package, default.primary, file.pickled)
            for default, file in zip(defaults, files, strict=True)
        ]
        # Up to the primary config, most of them are the same: what comes after it is a fourth.
        primary = [number for number, default in enumerate(defaults, 1) if default.primary]
        begin, pickled = 0, pickle.dumps(DictConfig({}))
        for end in (*primary[-1:], len(defaults)):
            key = tuple(keys[:end])
            if key not in merged:
                cfg = continued(merge, pickled)(self, defaults[begin:end], repo)
                merged[key] = pickle.dumps(cfg)
            begin, pickled = end, merged[key]
        return pickle.loads(pickled)

    ConfigRepository.load_config = load_config
    ConfigLoaderImpl._compose_config_from_defaults_list = compose
    for node in (AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode):
        node.__deepcopy__ = copied_node


def continued(merge: Callable, pickled: bytes) -> Callable:
    """Hydra's function, but from a config on, in place of an empty one."""
    start = SimpleNamespace(create=lambda: pickle.loads(pickled))
    return FunctionType(merge.__code__, merge.__globals__ | {"OmegaConf": start})


def remembered_file(repo: ConfigRepository, path: str, load: Callable) -> ConfigResult | None:
    source = repo._find_object_source(path, ObjectType.CONFIG)
    if source is None or source.scheme() not in ("file", "pkg", "structured"):
        return load(repo, path)
    place, content = (source.scheme(), source.provider, source.path, path), content_of(source, path)
    if place not in read or read[place][0] != content:
        read[place] = (content, pickle.dumps(load(repo, path)))
    pickled = read[place][1]
    result = pickle.loads(pickled)
    result.pickled = pickled
    return result


def content_of(source: ConfigSource, path: str) -> Any:
    name = source._normalize_file_name(path)
    if source.scheme() == "file":
        return Path(source.path, name).read_bytes()
    if source.scheme() == "structured":
        return (ConfigStore.instance()._load(name),)  # in a tuple, so that `is` comes before ==
    return None  # a file of an installed package


def copied_node(self: AnyNode, memo: dict) -> AnyNode:
    """As OmegaConf does it: the parent stays, and the value is not copied."""
    result = object.__new__(type(self))
    metadata = copy.deepcopy(self._metadata, memo)  # fast: lab.hydra_patches
    vars(result).update(vars(self), _metadata=metadata, _flags_cache=None)
    return result
