"""Signals that stop a run: from a person (Ctrl-C), the system, or a job scheduler."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lab.cause import frames, is_raised_in

# Ctrl-C; the system or a scheduler; a terminal that was closed; the warning signals of schedulers
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # not on Windows


def catchable() -> tuple[signal.Signals, ...]:
    """SIGNALS in the main thread; none in another, where Python allows no handlers."""
    return SIGNALS if threading.current_thread() is threading.main_thread() else ()


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn each of SIGNALS into SystemExit(128 + signal), so that how the run ended is recorded.

    A handler that is already installed stays: on Slurm, submitit's puts the job back into the
    queue.
    """

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in catchable()}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, leave)
    try:
        yield
    finally:
        restore(before)


def is_of_signal(end: BaseException) -> bool:
    """Whether a signal has ended what ran: the handler that is installed, or `lab.autosave`, has
    raised `end`. Otherwise it was code of the user's that called exit()."""
    handlers = map(signal.getsignal, catchable())
    codes = {getattr(handler, "__code__", None) for handler in handlers}
    return any(frame.f_code in codes for frame, _ in frames(end)) or is_raised_in(end, "lab")


def restore(handlers: Mapping[signal.Signals, Any]) -> None:
    """Install `handlers` again, except for signals that are ignored meanwhile."""
    for number, handler in handlers.items():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def ignore() -> None:
    """Ignore SIGNALS from now on: the process is ending because of one already."""
    for number in catchable():
        signal.signal(number, signal.SIG_IGN)
