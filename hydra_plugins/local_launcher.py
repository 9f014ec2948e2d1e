"""A launcher for this machine: jobs side by side, each in its own process.

Hydra imports this file at every start, so multiprocessing is imported only when it is needed.
"""

import json
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from lab import files, provenance
from lab.errors import ConfigError
from lab.terminal import unbreakable_output
from sweeps import jobs

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

# Imported once, before the jobs are forked. The optimizers need torch._dynamo.
IMPORTED = ["script", "training", "sources", "torchvision", "torch._dynamo"]
HAS_SESSIONS = hasattr(os, "setsid")  # not on Windows


class LocalLauncher(Launcher):
    """Runs `parallel` jobs at a time and divides the machine's cores among them.

    The processes are forked from one that has imported torch, so that a job starts at once. A job
    that is killed does not affect the others. When the command ends, by Ctrl-C for instance, its
    jobs save and end; when it is killed, they continue to run.
    """

    def __init__(self, parallel: int):
        if type(parallel) is not int or parallel < 1:
            raise ConfigError(
                f"hydra.launcher.parallel={parallel} is not allowed: it must be a whole number of "
                "at least 1, the number of jobs at a time."
            )
        self.parallel = parallel

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        from multiprocessing.connection import wait

        has_affinity = hasattr(os, "sched_getaffinity")  # not on a Mac
        cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // self.parallel)))
        os.environ["PYTHONPATH"] = str(provenance.PROJECT)
        os.environ["PYTHONSAFEPATH"] = "1"  # do not import from the current folder
        printed = Path(self.config.hydra.sweep.dir).absolute() / ".printed"
        files.make_folder(printed)
        print(
            f"{self.parallel} jobs at a time, each in its own process; output: "
            f"{self.config.hydra.sweep.dir}/JOB/script.log",
            flush=True,
        )
        returns: dict[int, JobReturn] = {}
        running: dict[Connection, tuple[int, BaseProcess, Path]] = {}
        due = list(range(len(job_overrides)))
        progress = jobs.Progress(len(due))
        while due or running:
            while due and len(running) < self.parallel:
                number = due.pop(0)
                overrides = list(job_overrides[number])
                output = printed / f"{jobs.folder_name(overrides)}.txt"
                answers, process = self._start(overrides, initial_job_idx + number, output)
                running[answers] = number, process, output
            for answers in wait(list(running)):
                number, *job = running.pop(answers)
                returns[number] = answer = answer_of(*job, answers)
                if self.config.fail_fast and jobs.has_failed(answer):
                    due.clear()
                outcome = jobs.outcome(jobs.folder_name(job_overrides[number]), answer)
                print(progress.line(outcome, len(running)), flush=True)
        return [returns[number] for number in sorted(returns)]

    def _start(
        self, overrides: list[str], number: int, output: Path
    ) -> tuple["Connection", "BaseProcess"]:
        """Start a job. Its answer comes through the connection, which closes when the job ends."""
        import multiprocessing

        import cloudpickle

        # On a Mac, libraries do not survive a fork: there, each process imports torch by itself.
        methods = multiprocessing.get_all_start_methods() if sys.platform == "linux" else []
        method = "forkserver" if "forkserver" in methods else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(IMPORTED)
        receiver, sender = context.Pipe(duplex=False)
        rest = (overrides, number, Singleton.get_state(), provenance.command())
        job = cloudpickle.dumps((self, *rest))
        # A daemon is terminated when the command ends. On Windows, that would kill it unsaved:
        # there it gets the Ctrl-C of the terminal itself, and the command waits for it.
        process = context.Process(target=run_apart, args=(job, sender, output), daemon=HAS_SESSIONS)
        process.start()
        sender.close()  # the job now has the only one
        return receiver, process

    def run(
        self,
        overrides: list[str],
        number: int,
        singletons: dict[type, Any],
        command: list[str],
    ) -> JobReturn:
        """The job, in its process."""
        provenance.remember_command(command)
        Singleton.set_state(singletons)
        setup_globals()
        loader = self.hydra_context.config_loader
        config = loader.load_sweep_config(self.config, overrides)
        with open_dict(config.hydra.job) as job:
            job.id, job.num = str(number), number
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def run_apart(job: bytes, answers: "Connection", output: Path) -> None:
    """Run a job in a session of its own, which the Ctrl-C of the terminal does not reach."""
    if HAS_SESSIONS:
        os.setsid()
    with open(output, "ab", opener=files.regular) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    launcher, *rest = pickle.loads(job)
    with unbreakable_output():
        answer = launcher.run(*rest)
    with suppress(BrokenPipeError):  # the command was killed
        answers.send_bytes(json.dumps(jobs.packed(answer)).encode())


def answer_of(process: "BaseProcess", output: Path, answers: "Connection") -> JobReturn:
    try:
        return jobs.unpacked(json.loads(answers.recv_bytes()))
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return jobs.died(f"the process ended without an answer, {how}; its output is in {output}")
