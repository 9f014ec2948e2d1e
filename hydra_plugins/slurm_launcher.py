"""A launcher for a Slurm cluster: Hydra's submitit launcher, told to wait for each job by itself.

Hydra imports this file at every start: submitit waits until it is needed.
"""

import copy
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra_plugins.hydra_submitit_launcher import config, submitit_launcher

import provenance
import record
from config.errors import Refusal
from hydra_plugins.resumable_sweeper import died, folder_name, has_failed, tell


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """One array of jobs, which run the code and the configs as they are at submission.

    What waits and runs is asked of squeue, what came of it of the jobs' own files: a cluster
    without accounting will do, and a job that dies without a word is noticed. Which job has which
    folder is written down, so that the same command, given again, finds them.
    """

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        from submitit.core.utils import FailedJobError

        if not shutil.which("sbatch"):
            raise Refusal(
                "hydra/launcher=slurm finds no sbatch: give the command on a machine of the "
                "cluster that jobs are submitted from, or take hydra/launcher=local."
            )
        calls = [
            (list(overrides), "hydra.sweep.dir", initial_job_idx + index, "", Singleton.get_state())
            for index, overrides in enumerate(job_overrides)
        ]
        try:
            jobs = self._executor(self._snapshot()).map_array(self, *zip(*calls, strict=True))
        except FailedJobError as error:
            raise Refusal(f"Slurm refused the jobs: {error}") from error
        ids = {job.job_id: folder_name(call[0]) for job, call in zip(jobs, calls, strict=True)}
        array = jobs[0].job_id.partition("_")[0]
        record.write_json(self._submissions() / f"{array}.json", ids)
        print(
            f"Slurm has the {len(jobs)} jobs as {array}. This command waits for them; ended and "
            f"given again it goes on waiting. To end the jobs: scancel {array}"
        )
        return self.wait(ids)

    def wait(self, ids: dict[str, str]) -> list[JobReturn]:
        """Until Slurm is done with these jobs, their folder's name by id. Tells each as it ends."""
        returns: dict[str, JobReturn] = {}
        missing: set[str] = set()
        pause = 1.0  # second; later ten, since everybody asks the same Slurm
        while waiting := [job_id for job_id in ids if job_id not in returns]:
            time.sleep(pause)
            pause = min(10, pause + 0.1)
            queue = queued_jobs()
            for job_id in waiting:
                if job_id in queue:
                    continue
                job = self._job(job_id)
                if job.paths.result_pickle.exists():
                    returns[job_id] = job.results()[0]
                elif job_id in missing:  # twice: a file may be seen later than the queue
                    returns[job_id] = died(f"the job ended without an answer: {job.paths.stderr}")
                missing.add(job_id)
                if job_id in returns:
                    tell(ids[job_id], returns[job_id])
            if self.config.fail_fast and any(map(has_failed, returns.values())):
                for job_id in waiting:
                    self._job(job_id).cancel()
        return [returns[job_id] for job_id in ids]

    def queued(self) -> dict[str, str]:
        """The jobs of earlier commands that wait or run: their folder's name by job id."""
        ids: dict[str, str] = {}
        for path in self._submissions().glob("*.json"):
            ids |= json.loads(path.read_text())
        queue = queued_jobs() if ids else set()
        return {job_id: name for job_id, name in ids.items() if job_id in queue}

    def _submissions(self) -> Path:
        return Path(self.params["submitit_folder"]).absolute().parent

    def _job(self, job_id: str):
        import submitit

        return submitit.SlurmJob(folder=self.params["submitit_folder"], job_id=job_id)

    def _snapshot(self) -> Path:
        """A copy of the project for these jobs; their configs come from there, too."""
        sweep_folder = Path(self.config.hydra.sweep.dir).absolute()
        moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
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
        folder, timeouts = params.pop("submitit_folder"), params.pop("max_num_timeout")
        data_dir = os.environ.get("DATA_DIR", str(provenance.PROJECT / "data"))
        environment = {
            "PYTHONPATH": str(project),
            "PYTHONSAFEPATH": "1",  # else the folder that the command was given in comes first
            "DATA_DIR": str(Path(data_dir).expanduser().absolute()),
            "SWEEP_COMMAND": json.dumps(sys.argv),
        }
        exports = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
        params["setup"] = [*params.get("setup", ()), *exports]
        shared = config.BaseQueueConf.__dataclass_fields__
        executor = submitit.AutoExecutor(folder, "slurm", slurm_max_num_timeout=timeouts)
        executor.update_parameters(
            **{key if key in shared else f"slurm_{key}": value for key, value in params.items()}
        )
        return executor


def queued_jobs() -> set[str]:
    """The ids of the user's jobs that wait, run, or are on their way back into the queue."""
    squeue = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    while True:
        done = subprocess.run(squeue, capture_output=True, text=True)
        if done.returncode == 0:
            return set(done.stdout.split())
        time.sleep(10)  # the controller is busy or restarts: it knows the jobs when it is back
