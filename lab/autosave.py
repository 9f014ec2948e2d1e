"""Save checkpoints while a model trains: when one is due, and when the process has to stop."""

import logging
import signal
import time
from pathlib import Path

from lab import group, ranks
from lab.signals import catchable, ignore, restore
from lab.state import State

log = logging.getLogger(__name__)
DUE, SIGNAL = 1, 100  # votes of a process: to save, and to stop after that, by SIGNAL + a signal


class Autosave:
    """Saves `state` to `path` after every so many epochs or seconds, and when a signal arrives.

    While the context is open, a signal is only noted: the state is saved after the step under way,
    and then the handler that was installed before is called. On Slurm that is submitit's, which
    puts the job back into the queue. A second Ctrl-C ends the process at once, without saving.

    Where several processes train the model, they save and stop after the same step. The clock is
    that of the first. A second Ctrl-C is ignored: torchrun itself sends one.
    """

    def __init__(self, state: State, path: Path, every: float, unit: str):
        self.state, self.path = state, path
        self.every, self.in_seconds = every, unit == "seconds"
        self.saved_at = time.perf_counter()
        self.is_asked = False  # whether this process has voted to save, since it is overdue
        self.pending: list[int] = []  # signals that arrived since the last step
        self.ranks, self.votes = ranks.current(), group.Votes()

    def __enter__(self) -> "Autosave":
        self.handlers = {number: signal.signal(number, self._note) for number in catchable()}
        return self

    def __exit__(self, *_: object) -> None:
        restore(self.handlers)

    def _note(self, number: int, frame: object) -> None:
        self.pending.append(number)
        if not self.ranks.are_several:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def after_step(self) -> None:
        if vote := self.votes.cast(self._vote(self._is_overdue())):
            self._save(vote)

    def after_epoch(self) -> None:
        is_due = self._is_overdue() if self.in_seconds else self.state.epoch % self.every == 0
        if vote := self.votes.cast_and_wait(self._vote(is_due or self.state.is_last_epoch)):
            self._save(vote)

    def _is_overdue(self) -> bool:
        """Asked again before all have saved, as they do one step later, the answer is no."""
        if not self.in_seconds or self.is_asked or not self.ranks.is_first:
            return False
        return time.perf_counter() - self.saved_at >= self.every

    def _vote(self, is_due: bool) -> int:
        self.is_asked = is_due
        return SIGNAL + self.pending.pop(0) if self.pending else is_due * DUE

    def _save(self, vote: int) -> None:
        """Save. Raises SystemExit(128 + signal) if a signal asked the process to stop."""
        self.state.save(self.path)
        self.saved_at, self.is_asked = time.perf_counter(), False
        if vote < SIGNAL:
            return
        number = vote - SIGNAL
        epoch, step = self.state.epoch, len(self.state.losses)
        name = signal.Signals(number).name
        log.info("%s: saved after epoch %d, step %d", name, epoch, step)
        if self.ranks.are_several:
            ignore()
        handler = self.handlers[number]
        if callable(handler):
            handler(number, None)
        if not callable(handler) or not self.ranks.is_first:
            # It was ignored before, as in the background of a shell script; or, on Slurm, submitit
            # puts the job back into the queue in its first process alone.
            raise SystemExit(128 + number)
