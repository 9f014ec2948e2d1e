"""The memory of the machine, which a config can ask for more of than there is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

from lab.errors import ConfigError

ELSEWHERE = 2**40  # bytes, where the system does not tell
GB = 10**9
MOST_TENSORS = 20_000  # made by a constructor; the largest published networks have a few thousand


def total() -> int:
    """The bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return ELSEWHERE


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Within the context, tensors cannot be made that together need more than a quarter of the
    memory: gradients, the state of the optimizer and the best weights need as much again.

    Raises ConfigError, before the memory is asked for: the system grants any amount, and kills the
    process, or others, when it is used. `what` is the part of the config that makes the tensors.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    most, made, count = total() // 4, 0, 0

    class Bounded(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal made, count
            kwargs = kwargs or {}
            if args and isinstance(args[0], list | tuple):  # a size: randn, empty, zeros, full
                sizes = [size for size in args[0] if type(size) is int]
                dtype = kwargs.get("dtype")
                made += prod(sizes) * (dtype.itemsize if dtype else 4)
                count += 1
                if made > most or count > MOST_TENSORS:
                    raise ConfigError(
                        f"{what} is too large for this machine: it has {count} tensors or more, "
                        f"of {made / GB:.1f} GB or more. Choose smaller sizes."
                    )
            return func(*args, **kwargs)

    with Bounded():
        yield
