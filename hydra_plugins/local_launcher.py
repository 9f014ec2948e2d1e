"""A launcher for this machine: jobs side by side, each in its own process.

Hydra imports this file at every start, so multiprocessing is imported only when it is needed.
"""

import json
import os
import pickle
import shutil
import signal
import subprocess
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

    def __init__(self, parallel: int, gpus_per_job: int = 1):
        if type(parallel) is not int or parallel < 1:
            raise ConfigError(
                f"hydra.launcher.parallel={parallel} is not allowed: it must be a whole number of "
                "at least 1, the number of jobs at a time."
            )
        if type(gpus_per_job) is not int or gpus_per_job < 0:
            raise ConfigError(
                f"hydra.launcher.gpus_per_job={gpus_per_job} is not allowed: it must be a whole "
                "number, 0 for jobs that share all GPUs."
            )
        self.parallel, self.gpus_per_job = parallel, gpus_per_job

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        from multiprocessing.connection import wait

        slots = self._slots()
        has_affinity = hasattr(os, "sched_getaffinity")  # not on a Mac
        cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // len(slots))))
        os.environ["PYTHONPATH"] = str(provenance.PROJECT)
        os.environ["PYTHONSAFEPATH"] = "1"  # do not import from the current folder
        printed = Path(self.config.hydra.sweep.dir).absolute() / ".printed"
        files.make_folder(printed)
        device = f" with {self.gpus_per_job} GPU of its own" if slots[0] else ""
        print(
            f"{len(slots)} jobs at a time, each in its own process{device}; output: "
            f"{self.config.hydra.sweep.dir}/JOB/script.log",
            flush=True,
        )
        returns: dict[int, JobReturn] = {}
        running: dict[Connection, tuple[int, str, BaseProcess, Path]] = {}
        due = list(range(len(job_overrides)))
        progress = jobs.Progress(len(due))
        while due or running:
            while due and slots:
                number, gpus = due.pop(0), slots.pop(0)
                overrides = list(job_overrides[number])
                output = printed / f"{jobs.folder_name(overrides)}.txt"
                answers, process = self._start(overrides, initial_job_idx + number, output, gpus)
                running[answers] = number, gpus, process, output
            for answers in wait(list(running)):
                number, gpus, *job = running.pop(answers)
                slots.append(gpus)
                returns[number] = answer = answer_of(*job, answers)
                if self.config.fail_fast and jobs.has_failed(answer):
                    due.clear()
                outcome = jobs.outcome(jobs.folder_name(job_overrides[number]), answer)
                print(progress.line(outcome, len(running)), flush=True)
        return [returns[number] for number in sorted(returns)]

    def _slots(self) -> list[str]:
        """What CUDA_VISIBLE_DEVICES says in each of the jobs that run at a time: GPUs of its own
        where there are several, empty where it stays as it is, since cuda:1 is the second of all
        GPUs. Raises ConfigError."""
        has_choice = self.gpus_per_job and self.config.device in ("auto", "cuda")
        names = visible_gpus() if has_choice else []
        if len(names) < 2:
            return [""] * self.parallel
        if self.gpus_per_job > len(names):
            raise ConfigError(
                f"hydra.launcher.gpus_per_job={self.gpus_per_job} is more than the {len(names)} "
                "GPUs of this machine: lower it."
            )
        starts = range(0, len(names) - self.gpus_per_job + 1, self.gpus_per_job)
        own = [",".join(names[start : start + self.gpus_per_job]) for start in starts]
        return own[: self.parallel]

    def _start(
        self, overrides: list[str], number: int, output: Path, gpus: str
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
        process = context.Process(
            target=run_apart, args=(job, sender, output, gpus), daemon=HAS_SESSIONS
        )
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


def visible_gpus() -> list[str]:
    """The GPUs that this command may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    count = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    return list(map(str, range(count)))


def run_apart(job: bytes, answers: "Connection", output: Path, gpus: str) -> None:
    """Run a job in a session of its own, which the Ctrl-C of the terminal does not reach."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
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
