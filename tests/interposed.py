"""Commands whose changes of files are counted, and interrupted at one of them.

`Commands` starts a process that runs one command to warm up, and forks itself for each other one:
hundreds of runs can be killed in minutes. `interpose.c` stands between Python and the C library.
"""

import ctypes
import gc
import json
import os
import runpy
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import remembering
from hydra._internal.hydra import Hydra

TESTS = Path(__file__).resolve().parent
KILL, KILL_HALFWAY, FULL = range(3)  # as in interpose.c
CRASHED = 70  # the exit code of a command that ends in a traceback


class Commands:
    """Runs commands as `python FILE ARGUMENTS` would, one at a time."""

    def __init__(self, folder: Path, *warm_up: str):
        library = folder / "interpose.so"
        compiler = shutil.which("cc") or "cc"
        source = str(TESTS / "interpose.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(library), *warm_up],
            cwd=folder,
            env=os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.output = folder / "output.txt"

    def __call__(
        self, folder: Path, *arguments: str, at: int = 0, what: int = KILL
    ) -> tuple[int, str, list[str]]:
        """Run a command in the parent of `folder`, below which operations are counted; at the one
        with the number `at`, `what` happens. Returns the exit code, the output, the operations."""
        order = [str(folder), arguments, at, what, str(self.output)]
        print(json.dumps(order), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        operations = Path(f"{self.output}.operations").read_text().splitlines()
        return code, self.output.read_text(), operations

    def close(self) -> None:
        self.process.communicate("")


def main() -> None:
    library, *warm_up = sys.argv[1:]
    del os.environ["LD_PRELOAD"]
    arm = ctypes.CDLL(library).arm
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    remembering.remember()
    call(warm_up)
    gc.freeze()  # a collection in a child would copy all that was imported
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(arm, *json.loads(line))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, file=answers, flush=True)


def call(command: list[str]) -> int:
    """Run `python COMMAND` in this process; return the exit code."""
    if "-m" not in command:  # as in conftest.py
        Hydra.get_mode = lambda *_, **__: None
    sys.argv = [str(TESTS.parent / command[0]), *command[1:]]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
        return CRASHED
    return 0


def run(arm, folder: str, command: list[str], at: int, what: int, output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
    operations = os.open(f"{output}.operations", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.chdir(os.path.dirname(folder))
    arm(folder.encode(), at, what, operations)
    code = call(command)
    arm(b"", 0, 0, -1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
