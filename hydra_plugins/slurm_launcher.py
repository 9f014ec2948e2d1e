"""A launcher for a Slurm cluster: Hydra's submitit launcher, but it waits for each job separately.

Hydra imports this file at every start, so submitit is imported only when it is needed.
"""

import copy
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra_plugins.hydra_submitit_launcher import config, submitit_launcher

from lab import files, launch, provenance, ranks, reading
from lab.errors import Refusal
from lab.terminal import unbreakable_output
from sweeps import jobs

JOBS = "jobs.json"  # the folder names of the jobs of a submission by their ids
MOST_JOBS = 64 * reading.MOST
NO_SLURM = (
    "hydra/launcher=slurm finds no {}: run the command on a machine of the cluster that jobs are "
    "submitted from, or use hydra/launcher=local."
)


@dataclass
class Queue(config.SlurmQueueConf):
    """What config/hydra/launcher/slurm.yaml may set."""

    wait: bool = True


ConfigStore.instance().store(group="hydra/launcher", name="slurm_keys", node=Queue)


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """Submits an array of jobs, which run the code and the configs as they are at submission.

    squeue tells which jobs wait or run, the jobs' own files how they ended: no accounting is needed
    on the cluster, and a job that dies without a result is noticed. The folder of every job is
    recorded, so that the same command finds the jobs again.

    submitit pickles what it submits, and unpickles what it finds under the number of a job. So each
    submission has a new folder of its own, which only this user can enter, and a job leaves its
    answer in JSON: nothing in the folder of a sweep, which may come from a stranger, is unpickled.
    """

    def __init__(self, wait: bool = True, **params: Any):
        super().__init__(**params)
        self.waits = wait
        self.folders: dict[str, Path] = {}  # of the submission of each job

    def __call__(self, *call: Any) -> None:
        """A job, in its process on the cluster."""
        import submitit

        job = submitit.JobEnvironment()
        if job.num_tasks > 1:  # one run in several processes, as torchrun starts them
            tasks = submitit.helpers.TorchDistributedEnvironment()
            tasks.export(set_cuda_visible_devices=False, overwrite=True)
        provenance.remember_command(self.command)
        with ranks.ending_together(), unbreakable_output(), ranks.silence():
            if not ranks.current().is_first:
                launch.follow(self.task_function)
                return
            answer = super().__call__(*call)
            files.write_json(_answer(self.folder, job.job_id), jobs.packed(answer))

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        from submitit.core.utils import FailedJobError

        if not shutil.which("sbatch"):
            raise Refusal(NO_SLURM.format("sbatch"))
        self.command = provenance.command()  # pickled with the launcher, for the jobs
        self.folder = self._new_folder()
        calls = [
            (list(overrides), "hydra.sweep.dir", initial_job_idx + index, "", Singleton.get_state())
            for index, overrides in enumerate(job_overrides)
        ]
        try:
            submitted = self._executor(self._snapshot()).map_array(self, *zip(*calls, strict=True))
        except FailedJobError as error:
            raise Refusal(f"Slurm refused the jobs: {error}") from error
        names = [jobs.folder_name(overrides) for overrides in job_overrides]
        ids = {job.job_id: name for job, name in zip(submitted, names, strict=True)}
        array = submitted[0].job_id.partition("_")[0]
        files.write_json(self.folder / JOBS, ids)
        self.folders |= dict.fromkeys(ids, self.folder)
        print(f"Slurm has queued {len(submitted)} jobs as {array}. To cancel them: scancel {array}")
        if not self.waits:
            return []
        print("This command waits for them; it may be stopped and repeated.")
        return self.wait(ids)

    def wait(self, ids: dict[str, str]) -> list[JobReturn]:
        """Wait for these jobs, given as folder names by id, and report each one when it ends."""
        from submitit.core.utils import JobPaths

        returns: dict[str, JobReturn] = {}
        missing: set[str] = set()
        pause = 1.0  # seconds; later 10, to spare the controller, which all users share
        while waiting := [job_id for job_id in ids if job_id not in returns]:
            time.sleep(pause)
            pause = min(10, pause + 0.1)
            queue = queued_jobs()
            for job_id in waiting:
                if job_id in queue:
                    continue
                path = _answer(self.folders[job_id], job_id)
                if path.exists():
                    returns[job_id] = jobs.unpacked(reading.read_json(path))
                elif job_id in missing:  # twice: its file may appear after it left the queue
                    log = JobPaths(self.folders[job_id], job_id).stderr
                    returns[job_id] = jobs.died(f"the job ended without an answer: {log}")
                missing.add(job_id)
                if job_id in returns:
                    print(jobs.outcome(ids[job_id], returns[job_id]), flush=True)
            if self.config.fail_fast and any(map(jobs.has_failed, returns.values())):
                subprocess.run(["scancel", *waiting])
        return [returns[job_id] for job_id in ids]

    def queued(self) -> dict[str, str]:
        """The jobs of earlier commands that wait or run, as folder names by id.

        A file that lists other jobs of this user, which a stranger may have put there, lists none:
        the script that a job runs is in the folder of its submission.
        """
        found: dict[str, str] = {}
        paths = list(self._submissions().glob(f"*/{JOBS}"))
        queue = queued_jobs(patient=False) if paths else {}
        for path in paths:
            for job_id, name in reading.read_json(path, MOST_JOBS).items():
                if path.parent in Path(queue.get(job_id, "")).parents and isinstance(name, str):
                    found[job_id], self.folders[job_id] = name, path.parent
        return found

    def _submissions(self) -> Path:
        return Path(self.params["submitit_folder"]).absolute().parent

    def _new_folder(self) -> Path:
        """A folder that nobody else can have put anything into."""
        files.make_folder(self._submissions(), mode=0o700)
        moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_")
        return Path(tempfile.mkdtemp(prefix=moment, dir=self._submissions()))

    def _snapshot(self) -> Path:
        """A copy of the project for these jobs, from which their configs come, too."""
        sweep_folder = Path(self.config.hydra.sweep.dir).absolute()
        moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
        files.make_folder(sweep_folder / ".code", mode=0o700)
        project = provenance.snapshot(sweep_folder / ".code" / moment)
        search_path = copy.deepcopy(self.hydra_context.config_loader.get_search_path())
        for element in search_path.get_path():
            if element.provider == "main":
                element.path = f"file://{project / 'config'}"
        loader = ConfigLoaderImpl(search_path)
        self.hydra_context = HydraContext(loader, self.hydra_context.callbacks)
        return project

    def _executor(self, project: Path):
        import submitit

        params = {key: value for key, value in self.params.items() if value is not None}
        timeouts = params.pop("max_num_timeout")
        del params["submitit_folder"]
        data_dir = os.environ.get("DATA_DIR", str(provenance.PROJECT / "data"))
        environment = {
            "PYTHONPATH": str(project),
            "PYTHONSAFEPATH": "1",  # otherwise the current folder comes first
            "DATA_DIR": str(Path(data_dir).expanduser().absolute()),
        }
        exports = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
        params["setup"] = [*params.get("setup", ()), *exports]
        shared = config.BaseQueueConf.__dataclass_fields__
        executor = submitit.AutoExecutor(self.folder, "slurm", slurm_max_num_timeout=timeouts)
        executor.update_parameters(
            **{key if key in shared else f"slurm_{key}": value for key, value in params.items()}
        )
        return executor


def _answer(folder: Path, job_id: str) -> Path:
    return folder / f"{job_id}_answer.json"


def queued_jobs(patient: bool = True) -> dict[str, str]:
    """The scripts that the user's jobs run which wait, run, or are being requeued, by their ids.

    While squeue fails, it is repeated if `patient`: the controller is busy or restarting, and does
    not forget jobs. Else Refusal is raised.
    """
    squeue = ["squeue", "--me", "--noheader", "--array", "--format=%i %o"]
    while True:
        try:
            done = subprocess.run(squeue, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise Refusal(NO_SLURM.format("squeue")) from error
        if done.returncode == 0:
            lines = (line.partition(" ") for line in done.stdout.splitlines())
            return {job_id: script for job_id, _, script in lines}
        if not patient:
            raise Refusal(f"Slurm does not say which jobs are queued: {done.stderr.strip()}")
        time.sleep(10)
