"""Save checkpoints while a model trains: when one is due, and when the process has to stop."""

import logging
import signal
import time
from pathlib import Path

from lab.signals import catchable
from lab.state import State

log = logging.getLogger(__name__)


class Autosave:
    """Saves `state` to `path` every so many epochs or seconds, and when a signal arrives.

    While the context is open, a signal is only noted: the state is saved after the step under way,
    and then the handler that was installed before is called. On Slurm that is submitit's, which
    puts the job back into the queue. A second Ctrl-C ends the process at once, without saving.
    """

    def __init__(self, state: State, path: Path, every: float, unit: str):
        self.state, self.path = state, path
        self.every, self.in_seconds = every, unit == "seconds"
        self.saved_at = time.perf_counter()
        self.pending: list[int] = []  # signals that arrived since the last step

    def __enter__(self) -> "Autosave":
        self.handlers = {number: signal.signal(number, self._note) for number in catchable()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.pending.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def after_step(self) -> None:
        if self.pending or self._is_overdue():
            self._save()

    def after_epoch(self) -> None:
        is_due = self._is_overdue() if self.in_seconds else self.state.epoch % self.every == 0
        if is_due or self.state.is_last_epoch or self.pending:
            self._save()

    def _is_overdue(self) -> bool:
        return self.in_seconds and time.perf_counter() - self.saved_at >= self.every

    def _save(self) -> None:
        """Save. Raises SystemExit(128 + signal) if a signal asked the process to stop."""
        self.state.save(self.path)
        self.saved_at = time.perf_counter()
        while self.pending:
            number = self.pending.pop(0)
            epoch, step = self.state.epoch, len(self.state.losses)
            name = signal.Signals(number).name
            log.info("%s: saved after epoch %d, step %d", name, epoch, step)
            handler = self.handlers[number]
            if callable(handler):
                handler(number, None)
            else:  # it was ignored before, as in the background of a shell script
                raise SystemExit(128 + number)
