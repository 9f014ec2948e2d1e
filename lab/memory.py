"""How much memory there is, how much of it is free, and a limit on what a config may ask for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import ConfigError

if TYPE_CHECKING:
    import torch

ELSEWHERE = 2**40  # bytes, where the system does not tell
GB = 10**9
CGROUPS = Path("/sys/fs/cgroup")
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

    Raises ConfigError, before the memory is asked for: the system grants any amount, and kills this
    process, or others, once it is used. `what` is the part of the config that makes the tensors.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    most, made, count = total() // 4, 0, 0

    class Bounded(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # to skip it, torch imports its compiler, which takes seconds

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
                        f"{what} is too large for this machine: its tensors need {made / GB:.3g} "
                        f"GB or more, in {count} or more tensors; {most / GB:.3g} GB and "
                        f"{MOST_TENSORS} tensors are allowed. Choose smaller sizes."
                    )
            return func(*args, **kwargs)

    with Bounded():
        yield


def free_memory(device: "torch.device | str" = "cpu") -> int:
    """Bytes that can still be used on `device` without swapping."""
    import psutil  # not at the top: --help and refusals do not need it
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, *_left_in_groups(Path("/proc/self/cgroup")))


def _left_in_groups(membership: Path) -> list[int]:
    """Bytes that each control group around this process still allows, from Slurm's or Docker's
    limit; one large number if there is no limit."""
    left = [2**62]
    lines = _text(membership).splitlines() if membership.exists() else []
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        base = CGROUPS / "memory" if controllers else CGROUPS
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, usage = names if controllers else ("memory.max", "memory.current")
        below = base / path.lstrip("/")
        for folder in (below, *below.parents):
            if folder.is_relative_to(base) and (folder / limit).exists():
                allowed = _text(folder / limit).strip()
                if allowed.isdigit():  # not "max"
                    used = int(_text(folder / usage)) - _reclaimable(folder / "memory.stat")
                    left.append(max(0, int(allowed) - used))
    return left


def _reclaimable(path: Path) -> int:
    """Bytes of files that the kernel keeps in memory and drops when it needs the space."""
    lines = _text(path).splitlines() if path.exists() else []
    pairs = dict(line.split(maxsplit=1) for line in lines)
    return int(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
