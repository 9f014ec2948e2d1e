"""The generators of random numbers: seeded, and their state saved and restored."""

import random
from typing import Any

import numpy
import torch


def seed_everything(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)  # the generators of all devices


def generators() -> dict[str, Any]:
    """The state of every random generator, as tensors and primitives."""
    name, keys, *rest = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(numpy.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_generators(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, position, *rest = state["numpy"]
    if not 0 <= position <= len(keys) == 624:  # NumPy would read past the end
        raise ValueError("the state of NumPy's generator is damaged")
    numpy.random.set_state((name, keys.numpy().astype(numpy.uint32), position, *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and (states := state["cuda"]):
        # Of the device in use. Earlier versions wrote those of all devices, by their numbers.
        number = torch.cuda.current_device()
        torch.cuda.set_rng_state(states[number if number < len(states) else 0])
