"""MLflow: a server, a database or a folder, as `mlflow server` shows it."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from lab.extras import require
from lab.trackers import START, Description

# In MLflow's own words.
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED", "interrupted": "KILLED"}
# MLflow's own defaults wait several minutes for a server that is gone, and print when a run ends.
# Variables that you have set are kept.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
ID, GROUP = "run_folder_id", "sweep"  # tags
MOST = 100  # parameters in one request


class MLflow:
    """The runs of an experiment. A tag identifies this one, since the server chooses the ids."""

    def __init__(self, tracking_uri: str | None, experiment: str):
        require("mlflow", "logger=mlflow")
        self.tracking_uri, self.experiment = tracking_uri, experiment

    def start(self, run: Description) -> int:
        self.added = {key: ENVIRONMENT[key] for key in ENVIRONMENT if key not in os.environ}
        os.environ.update(self.added)
        for name, level in (("mlflow", logging.WARNING), ("urllib3", logging.ERROR)):
            logging.getLogger(name).setLevel(level)  # a server that is gone causes one warning
        from mlflow import MlflowClient

        with _one_at_a_time(run):
            self.client = MlflowClient(tracking_uri=self.tracking_uri)
            experiment = self._experiment()
        found = self.client.search_runs([experiment], f"tags.{ID} = '{run.id}'", max_results=1)
        if found:
            self.run = found[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            steps = [m.step for m in self.client.get_metric_history(self.run, "val/accuracy")]
            return max(steps, default=0)
        tags = {ID: run.id, "run_folder": str(run.folder)}
        tags |= {GROUP: run.group} if run.group else {}
        self.run = self.client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
        self._log_parameters(run)
        return 0

    def _experiment(self) -> str:
        """The id of the experiment, which is made if there is none."""
        from mlflow.exceptions import MlflowException

        if (found := self.client.get_experiment_by_name(self.experiment)) is None:
            try:
                return self.client.create_experiment(self.experiment)
            except MlflowException:  # another job has just made it, or it cannot be made
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return found.experiment_id

    def _log_parameters(self, run: Description) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in run.config.items()]
        for start in range(0, len(params), MOST):
            self.client.log_batch(self.run, params=params[start : start + MOST])

    def log(self, figures: dict[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, epoch) for name, value in figures.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def end(self, figures: dict[str, float], epoch: int, status: str, reason: str | None) -> None:
        if figures:
            self.log(figures, epoch)
        self.client.set_tag(self.run, "status", status)
        if reason:
            self.client.set_tag(self.run, "reason", reason[:5000])
        self.client.set_terminated(self.run, STATUSES[status])
        for key in self.added:
            os.environ.pop(key, None)


@contextmanager
def _one_at_a_time(run: Description) -> Iterator[None]:
    """Jobs of a sweep that start together wait for one another: a client makes the
    database if there is none, and two processes that make it at once damage it."""
    if run.group:
        with filelock.FileLock(run.folder.parent / ".mlflow.lock", timeout=START / 2):
            yield
    else:
        yield
