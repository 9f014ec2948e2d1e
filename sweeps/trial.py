"""A trial of a search: what was proposed, and what it reached."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Trial:
    """A proposal: values of the searched keys, and the result once there is one."""

    number: int
    params: dict[str, Any]
    status: str = "running"  # or finished, pruned, failed
    values: tuple[float, ...] = ()  # of the objectives, in their order, if it has finished


def is_finite(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def best_of(trials: Sequence[Trial], directions: Sequence[str]) -> list[Trial]:
    """The first of the best trials; for several objectives, all that no other trial dominates."""
    finished = [trial for trial in trials if trial.status == "finished"]
    scores = {trial.number: score(trial, directions) for trial in finished}

    def is_beaten(own: tuple) -> bool:
        return any(
            other != own and all(a >= b for a, b in zip(other, own, strict=True))
            for other in scores.values()
        )

    front = [trial for trial in finished if not is_beaten(scores[trial.number])]
    return front[:1] if len(directions) == 1 else front


def score(trial: Trial, directions: Sequence[str]) -> tuple[float, ...]:
    """The values of a trial, with signs chosen so that higher is better."""
    pairs = zip(trial.values, directions, strict=True)
    return tuple(value if way == "maximize" else -value for value, way in pairs)
