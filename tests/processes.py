"""Runs in several processes, as torchrun starts them, each forked from one that is warm.

Whatever happens, they end: those that are left after `DEADLINE` are killed by their numbers.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import remembering
from interposed import call

DEADLINE = 60  # seconds
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Processes:
    """Starts `python script.py ARGUMENTS` in several processes."""

    def __init__(self, folder: Path, *warm_up: str):
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, __file__, *warm_up],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONPATH": str(folder)},
        )  # fmt: skip

    def start(self, count: int, *arguments: str) -> list[int]:
        """The numbers of the processes, which `end` waits for, by their ranks."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        print(json.dumps([count, port, arguments]), file=self.server.stdin, flush=True)
        return json.loads(self.server.stdout.readline())

    def end(self) -> tuple[list[int], list[str]]:
        """Exit codes and outputs, by rank."""
        codes = json.loads(self.server.stdout.readline())
        outputs = [(self.folder / f"output{rank}.txt").read_text() for rank in range(len(codes))]
        return codes, outputs

    def __call__(self, count: int, *arguments: str) -> tuple[list[int], list[str]]:
        self.start(count, *arguments)
        return self.end()

    def close(self) -> None:
        self.server.communicate("")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    remembering.remember()
    call(["script.py", *sys.argv[1:]])
    import torch._dynamo  # noqa: F401  as DistributedDataParallel does: once, not in each process

    for line in sys.stdin:
        count, port, arguments = json.loads(line)
        children = [fork(rank, count, port, arguments) for rank in range(count)]
        print(json.dumps(children), file=answers, flush=True)
        print(json.dumps(codes_of(children)), file=answers, flush=True)


def fork(rank: int, count: int, port: int, arguments: list[str]) -> int:
    if child := os.fork():
        return child
    file = os.open(f"output{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
    sys.__stderr__ = sys.stderr
    if count > 1:
        values = (rank, rank, count, "127.0.0.1", port)
        os.environ |= dict(zip(VARIABLES, map(str, values), strict=True))
    code = call(["script.py", *arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code % 256)


def codes_of(children: list[int]) -> list[int]:
    end, codes = time.monotonic() + DEADLINE, {}
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            number, status = os.waitpid(child, os.WNOHANG)
            if number:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return [codes[child] for child in children]


if __name__ == "__main__":
    main()
