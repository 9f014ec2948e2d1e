"""What the steps of a run spend their time on, by torch's profiler."""

import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import profile, schedule

from lab import files, record
from lab.state import State

log = logging.getLogger(__name__)

SKIPPED = 3  # first steps, which allocate memory and choose kernels; the profiler warms up in two
TRACE = "trace.json"
MOST_ROWS = 10


def attach(state: State, steps: int, folder: Path) -> None:
    """Record this many `steps` of the training of `state`, report them, and write the trace.

    A hook of the optimizer drives the profiler, so that the loop has no branch for it.
    """
    left = sum(state.steps[state.epoch :]) - len(state.losses)
    steps = min(steps, left - SKIPPED)
    if steps < 1:
        log.warning("nothing is profiled: the run has %d steps, and needs %d", left, SKIPPED + 1)
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it reports that there is no GPU
    profiler = profile(schedule=schedule(wait=1, warmup=SKIPPED - 1, active=steps, repeat=1))
    profiler.start()

    def after_step(*_: object) -> None:
        profiler.step()
        if profiler.step_num == SKIPPED + steps:
            hook.remove()
            profiler.stop()
            _report(profiler, steps, folder)

    hook = state.optimizer.register_step_post_hook(after_step)


def _report(profiler: profile, steps: int, folder: Path) -> None:
    """Print the operations with the most self time, and write the trace."""
    rows = [row for row in profiler.key_averages() if not row.is_user_annotation]
    on_device = any(row.self_device_time_total for row in rows)
    figure = "self_device_time_total" if on_device else "self_cpu_time_total"
    total = max(sum(getattr(row, figure) for row in rows), 1)
    rows.sort(key=lambda row: -getattr(row, figure))
    where = torch.accelerator.current_accelerator().type if on_device else "cpu"
    log.info(
        "the costliest operations of %d steps, by self time on %s, %.1f ms in all:",
        *(steps, where, total / 1000),
    )
    for row in rows[:MOST_ROWS]:
        spent = getattr(row, figure)
        log.info(f"{spent / total:7.1%} {spent / 1000:9.1f} ms {row.count:7d} ×  {row.key:.45}")
    with TemporaryDirectory() as scratch, files.replacing(folder / TRACE) as file:
        profiler.export_chrome_trace(str(Path(scratch, TRACE)))
        file.write(Path(scratch, TRACE).read_bytes())
    log.info("open %s in https://ui.perfetto.dev", record.shown(folder / TRACE))
