"""The processes of one run: torchrun or Slurm starts several, which train a model together.

The first one, of rank 0, composes the config, prints, and writes the run folder. The others wait
until it has opened its run, get the config from it, and print nothing. They talk through a torch
store, so torch is imported before anything is refused, but only where there are several.
"""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Never

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets all of them
POLL = 0.05  # seconds
PATIENCE = 10.0  # seconds; torchrun kills a process 30 s after another one has failed
BRIEFLY = 3.0
ARRIVAL = timedelta(minutes=10)  # of the last process, after the first
# What torch says in one process when another one has ended.
WORDS = "gloo|NCCL|[Cc]onnection|[Ss]ocket|[Bb]roken pipe|c10d|TCPStore|[Tt]imed out"
CONNECTION = re.compile(WORDS)
closing: list[Callable[[], None]] = []  # what closes connections of this process to the others
_unsaid: list[str] = []  # why this process has failed


@dataclass(frozen=True)
class Ranks:
    """Which of `count` processes this is: `rank` among all, `local` among those of this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def are_several(self) -> bool:
        return self.count > 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def current() -> Ranks:
    if not all(map(os.environ.get, VARIABLES)):
        return Ranks()
    rank, count = (int(os.environ[name]) for name in VARIABLES[:2])
    return Ranks(rank, count, int(os.environ.get("LOCAL_RANK", rank))) if count > 1 else Ranks()


def interpreter() -> list[str]:
    """The words of a command that start a script in as many processes of one machine as now."""
    count = current().count
    return ["torchrun", f"--nproc-per-node={count}"] if count > 1 else ["python"]


@contextmanager
def silence() -> Iterator[None]:
    """Within the context, only the first process prints. What C++ prints when it crashes remains:
    it writes to the descriptor itself."""
    if current().is_first:
        yield
        return
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null:
        sys.stdout = sys.stderr = null
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


@contextmanager
def ending_together() -> Iterator[None]:
    """What a process does from its start to its end: the first tells the others that it has ended,
    and with which exit code, after it has printed and recorded everything; they end after it.

    An earlier end of any of them would make torchrun stop the first one in the middle of that.
    """
    if not current().are_several:
        yield
        return
    # torch's warnings in C++: that a search for unused parameters, which is wanted, found none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    code = 1
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        _leave(code)


def _leave(code: int) -> None:
    me = current()
    try:
        if me.is_first:
            store().set("over", str(code))
            others = [f"left/{rank}" for rank in range(1, me.count)]
            wait_for(lambda: store().check(others), BRIEFLY)
        elif wait_for(lambda: store().check(["over"]), BRIEFLY if _unsaid else PATIENCE):
            store().set(f"left/{me.rank}", "")
    except RuntimeError:  # the first process is gone, and the store with it
        if _unsaid:
            print(f"{_name(me.rank)} failed: {_unsaid[0]}", file=sys.__stderr__, flush=True)
    for close in closing:
        close()
    closing.clear()


@cache
def store() -> Any:
    """What all processes read and write. Raises RuntimeError if the others do not arrive."""
    from torch.distributed import rendezvous

    return next(rendezvous("env://", timeout=ARRIVAL))[0]


def wait_for(is_so: Callable[[], bool], seconds: float) -> bool:
    """Whether `is_so` came true in time. Signals are handled while it waits, as they are not while
    torch does."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def announce(**facts: Any) -> None:
    """Tell the other processes, which wait for it, that the run is open."""
    if current().are_several:
        store().set("opened", json.dumps(facts))


def announced() -> dict[str, Any]:
    """What the first process has announced; with it, the process ends if there will be no run."""
    shared = store()
    while not shared.check(["opened"]):
        if shared.check(["over"]):
            sys.exit(int(shared.get("over")))
        time.sleep(POLL)
    return json.loads(shared.get("opened"))


def report(error: Exception, sentence: str | None) -> Never:
    """In another process than the first: tell it why this one fails, and raise SystemExit.

    Where the first has failed, too, its own reason is the one to print, and this process waits for
    that. Else it may be waiting for this one, which therefore ends: nothing but that closes gloo's
    connections.
    """
    if not is_of_connection(error):
        reason = sentence or "".join(traceback.format_exception(error)).strip()
        _unsaid.append(reason)
        with suppress(RuntimeError):
            store().set(f"failed/{current().rank}", reason)
    sys.exit(1)


def is_of_connection(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and bool(CONNECTION.search(str(error)))


def failed() -> list[int]:
    """The ranks of the other processes that have reported a failure."""
    with suppress(RuntimeError):  # the store has ended with the process that holds it
        return [rank for rank in range(1, current().count) if store().check([f"failed/{rank}"])]
    return []


def culprit() -> str:
    """Which other process has failed, and why, as far as it has told."""
    with suppress(RuntimeError):
        if wait_for(lambda: bool(failed()), BRIEFLY):
            rank = failed()[0]
            return f"{_name(rank)} failed: {store().get(f'failed/{rank}').decode()}"
    return (
        "another process of the run has ended without a word: it was killed, perhaps for lack of "
        "memory, or its machine is gone. Resume the run from its last checkpoint."
    )


def _name(rank: int) -> str:
    return f"process {rank} (of 0 to {current().count - 1})"
