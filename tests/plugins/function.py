"""A small Hydra app for test_search_sweeper.py: a function with a known optimum.

Its maximum, 0, is at x=0.3 and rate=0.01.
"""

import math
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from lab.errors import errors_as_sentences


@dataclass
class Function:
    x: float = 0.0
    rate: float = 1.0
    count: int = 0
    other: int = 1
    half: float = 1.0
    step: float = 0.0
    word: str = "good"
    sizes: Any = None
    both: bool = False


ConfigStore.instance().store("function", Function)


@hydra.main(version_base="1.3", config_path="../../config", config_name="function")
def main(cfg: DictConfig) -> float | tuple[float, float]:
    if cfg.word == "bad":
        raise RuntimeError("a bad word")
    if cfg.word == "nan":
        return math.nan
    value = -((cfg.x - 0.3) ** 2) - (math.log10(cfg.rate) + 2) ** 2 / 4
    return (value, cfg.x) if cfg.both else value


if __name__ == "__main__":
    with errors_as_sentences():
        main()
