"""Trackers of the tests' own, as config/logger/ could name them: `+logger.NAME._target_=…`."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy
import torch


class Told:
    """Writes down, in a file, what it is told; forgets nothing when it is started again."""

    def __init__(self, path: str = "told.jsonl"):
        self.path = Path(path).absolute()

    def calls(self) -> list:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def start(self, run) -> int:
        epochs = [call[2] for call in self.calls() if call[0] == "log" and call[-1] == run.id]
        self.id = run.id
        self.write("start", run.name, run.group, run.epoch, run.config)
        return max(epochs, default=0)

    def log(self, figures, epoch) -> None:
        self.write("log", figures, epoch)

    def end(self, figures, epoch, status, reason) -> None:
        self.write("end", figures, epoch, status, reason)

    def write(self, *call) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([*call, self.id]) + "\n")


class Failing(Told):
    """Fails in some epochs; at the end, it is there again."""

    def __init__(self, path: str = "told.jsonl", epochs: tuple = (2,), seconds: float = 0):
        super().__init__(path)
        self.epochs, self.seconds, self.is_broken = epochs, seconds, True

    def start(self, run) -> int:
        last = super().start(run)
        if 0 in self.epochs:
            raise ConnectionError("no server at http://127.0.0.1:1")
        return last

    def log(self, figures, epoch) -> None:
        if epoch in self.epochs and self.is_broken:
            self.is_broken = False
            time.sleep(self.seconds)
            if not self.seconds:
                raise ConnectionError("the server is gone")
        super().log(figures, epoch)


class Drawing(Told):
    """Draws from all random generators whenever it is called."""

    def write(self, *call) -> None:
        random.random(), numpy.random.rand(), torch.rand(1)
        super().write(*call)


class Killing:
    """Sends a signal to this process, or to another process group, in an epoch."""

    def __init__(self, epoch: int, how: str = "SIGKILL", group: int | None = None):
        self.epoch, self.how, self.group = epoch, getattr(signal, how), group

    def start(self, run) -> int:
        return 0

    def log(self, figures, epoch) -> None:
        if epoch == self.epoch:
            if self.group is None:
                os.kill(os.getpid(), self.how)
            else:
                os.killpg(self.group, self.how)
                time.sleep(0.5)

    def end(self, *_) -> None:
        pass
