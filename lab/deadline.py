"""Calls that are not waited for beyond a deadline, whatever they do."""

import queue
import threading
from collections.abc import Callable
from typing import Any


class Calls:
    """Calls functions in a thread of their own, so that none is waited for beyond a deadline."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.is_stuck = False

    def __call__(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Raises TimeoutError, or what the function raises."""
        if self.thread is None:  # a daemon, which does not keep the process from ending
            self.thread = threading.Thread(target=self._serve, daemon=True)
            self.thread.start()
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self.waiting.put((function, args, answer))
        try:
            error = answer.get(timeout=seconds)
        except queue.Empty:
            self.is_stuck = True
            raise TimeoutError(f"no answer within {seconds:.0f} seconds") from None
        if error is not None:
            raise error

    def close(self) -> None:
        self.waiting.put(None)

    def _serve(self) -> None:
        while (call := self.waiting.get()) is not None:
            function, args, answer = call
            try:
                function(*args)
            except SystemExit as error:  # some packages exit where they should raise
                answer.put(RuntimeError(f"it wanted to exit ({error})"))
            except Exception as error:
                answer.put(error)
            else:
                answer.put(None)
