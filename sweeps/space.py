"""The space that a search varies, written in the syntax of Hydra's command line.

optimizer.lr=tag(log,interval(1e-4,1e-1))   a number between the two, uniform on a log scale
model.depth=range(2,9)                      2 to 8, as in a sweep; range(0,1,0.25) for other steps
epochs=int(interval(1,10))                  a whole number, both ends included
optimizer=adam,sgd or choice(adam,sgd)      one of these
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from lab.errors import ConfigError
from lab.schema import NOT_THE_EXPERIMENT


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included; whole numbers if both are."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __str__(self) -> str:
        step = f" in steps of {self.step}" if self.step else ""
        return f"{self.low} to {self.high}{step}{' on a log scale' if self.log else ''}"

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    def examples(self) -> list[Any]:
        """Values to compose the config with, to see whether it accepts them."""
        return [self.low if self.is_whole or self.step else self.low + (self.high - self.low) / 3]

    def exactly(self, value: float) -> float:
        """A value as Hydra should get it, after a package has converted it to its own type."""
        return int(value) if self.is_whole else float(value)

    def position(self, value: float) -> float:
        """Where a value lies between the ends, from 0 to 1."""
        low, high, value = (
            map(math.log, (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        return [(0, f"{self.low:.4g}"), (1, f"{self.high:.4g}")]


@dataclass(frozen=True)
class Choice:
    """One of `values`: numbers, or else strings as they are written on the command line."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))

    def examples(self) -> list[Any]:
        return list(self.values)

    def exactly(self, value: Any) -> Any:
        return self.values[self.values.index(value)]

    def position(self, value: Any) -> float:
        return self.values.index(value) / (len(self.values) - 1)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.position(value), str(value)) for value in self.values]


Space = dict[str, Interval | Choice]


def parse(lines: Sequence[str], parser: OverridesParser) -> tuple[list[str], Space]:
    """The fixed overrides and the space that `lines` describe. The last line for a key counts.

    Raises ConfigError for a range of values that cannot be searched.
    """
    last = {override.get_key_element(): override for override in parser.parse_overrides(lines)}
    fixed = [
        override.input_line or "" for override in last.values() if not override.is_sweep_override()
    ]
    space = {key: parameter(o) for key, o in last.items() if o.is_sweep_override()}
    return fixed, space


def parameter(override: Override) -> Interval | Choice:
    """The values that an override with interval, range, choice, or commas allows."""
    sweep, line, key = override.value(), override.input_line, override.get_key_element()
    if key.lstrip("+").partition(".")[0] in NOT_THE_EXPERIMENT:
        raise ConfigError(f"{line} cannot be searched: {key} changes no result. Give one value.")
    if tags := sorted(getattr(sweep, "tags", set()) - {"log"}):
        raise ConfigError(f"{line}: the tag {tags[0]} has no meaning here; log is the only one.")
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        found: Interval | Choice = Interval(sweep.start, sweep.end, log=log)
    elif isinstance(sweep, RangeSweep):
        numbers = sorted(sweep.range()) or [0]
        step = None if sweep.step in (1, -1) and isinstance(numbers[0], int) else abs(sweep.step)
        found = Interval(numbers[0], numbers[-1], step and type(numbers[0])(step), log)
    else:
        found = Choice(tuple(dict.fromkeys(_choices(override))))
    if isinstance(found, Choice):
        if len(found.values) < 2:
            raise ConfigError(f"{line} has only one value: give two or more, or do not search it.")
        if log:
            raise ConfigError(f"{line}: log is for an interval or a range, not for a choice.")
        return found
    if override.config_loader.get_group_options(override.key_or_group):
        raise ConfigError(f"{line}: {override.key_or_group} is a group: name its options.")
    if not found.low < found.high:
        raise ConfigError(f"{line} is empty: the first number must be below the last.")
    if log and (found.low <= 0 or found.step):
        raise ConfigError(f"{line}: log needs numbers above 0 and no step.")
    return found


def _choices(override: Override) -> list[Any]:
    """Numbers as numbers, since they have an order; anything else as text for Hydra to parse."""
    texts = list(override.sweep_string_iterator())
    values = getattr(override.value(), "list", None) or texts
    numeric = all(isinstance(value, int | float) and value is not True for value in values)
    numeric = numeric and not any(isinstance(value, bool) for value in values)
    return list(values) if numeric else texts


def overrides(params: dict[str, Any]) -> list[str]:
    """The values of one trial as overrides."""
    return [f"{key}={value}" for key, value in params.items()]
