"""How much memory is free: of the machine, of the container or job, or of the GPU."""

from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be used on `device` without swapping."""
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
