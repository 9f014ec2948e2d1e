"""A launcher for a Slurm cluster: Hydra's submitit launcher, but it waits for each job separately.

Hydra imports this file at every start, so submitit is imported only when it is needed.
"""

import copy
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra_plugins.hydra_submitit_launcher import config, submitit_launcher

from lab import files, provenance
from lab.errors import Refusal
from lab.terminal import unbreakable_output
from sweeps import jobs


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """Submits an array of jobs, which run the code and the configs as they are at submission.

    squeue tells which jobs wait or run, the jobs' own files how they ended: no accounting is needed
    on the cluster, and a job that dies without a result is noticed. The folder of every job is
    recorded, so that the same command finds the jobs again.
    """

    def __call__(self, *call: Any) -> JobReturn:
        """A job, in its process on the cluster."""
        provenance.remember_command(self.command)
        with unbreakable_output():
            return super().__call__(*call)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        from submitit.core.utils import FailedJobError

        if not shutil.which("sbatch"):
            raise Refusal(
                "hydra/launcher=slurm finds no sbatch: run the command on a machine of the "
                "cluster that jobs are submitted from, or use hydra/launcher=local."
            )
        self.command = provenance.command()  # pickled with the launcher, for the jobs
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
        files.write_json(self._submissions() / f"{array}.json", ids)
        print(
            f"Slurm has queued {len(submitted)} jobs as {array}. This command waits for them; it "
            f"may be ended and repeated. To cancel the jobs: scancel {array}"
        )
        return self.wait(ids)

    def wait(self, ids: dict[str, str]) -> list[JobReturn]:
        """Wait for these jobs, given as folder names by id, and report each one when it ends."""
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
                job = self._job(job_id)
                if job.paths.result_pickle.exists():
                    returns[job_id] = job.results()[0]
                elif job_id in missing:  # twice: its file may appear after it left the queue
                    reason = f"the job ended without an answer: {job.paths.stderr}"
                    returns[job_id] = jobs.died(reason)
                missing.add(job_id)
                if job_id in returns:
                    print(jobs.outcome(ids[job_id], returns[job_id]), flush=True)
            if self.config.fail_fast and any(map(jobs.has_failed, returns.values())):
                for job_id in waiting:
                    self._job(job_id).cancel()
        return [returns[job_id] for job_id in ids]

    def queued(self) -> dict[str, str]:
        """The jobs of earlier commands that wait or run, as folder names by id."""
        ids: dict[str, str] = {}
        for path in self._submissions().glob("*.json"):
            ids |= json.loads(path.read_text(encoding="utf-8"))
        queue = queued_jobs() if ids else set()
        return {job_id: name for job_id, name in ids.items() if job_id in queue}

    def _submissions(self) -> Path:
        return Path(self.params["submitit_folder"]).absolute().parent

    def _job(self, job_id: str):
        import submitit

        return submitit.SlurmJob(folder=self.params["submitit_folder"], job_id=job_id)

    def _snapshot(self) -> Path:
        """A copy of the project for these jobs, from which their configs come, too."""
        sweep_folder = Path(self.config.hydra.sweep.dir).absolute()
        moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
        files.make_folder(sweep_folder / ".code")
        files.make_folder(self._submissions())  # submitit makes its folders in it
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
            "PYTHONSAFEPATH": "1",  # otherwise the current folder comes first
            "DATA_DIR": str(Path(data_dir).expanduser().absolute()),
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
    """The ids of the user's jobs that wait, run, or are being requeued."""
    squeue = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    while True:
        done = subprocess.run(squeue, capture_output=True, text=True)
        if done.returncode == 0:
            return set(done.stdout.split())
        time.sleep(10)  # the controller is busy or restarting; it does not forget jobs
