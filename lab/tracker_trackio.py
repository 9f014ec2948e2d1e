"""Trackio, Hugging Face's local tracker, which `trackio show` shows."""

import contextlib
import io

from lab.extras import require
from lab.trackers import Description


class Trackio:
    """A run of a project in Trackio's folder (TRACKIO_DIR), or where TRACKIO_SPACE_ID or
    TRACKIO_SERVER_URL says. Its name has the id, since Trackio finds runs by their names."""

    def __init__(self, project: str):
        require("trackio", "logger=trackio")
        self.project = project

    def start(self, run: Description) -> int:
        import trackio
        from trackio import context_vars

        context_vars.current_run.set(None)  # of another job, which has ended by itself
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how to view the run
            self.run = trackio.init(
                project=self.project,
                name=f"{run.name} {run.id}",
                group=run.group,
                config=run.config,
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        context_vars.current_run.set(None)
        return self.run._next_step - 1

    def log(self, figures: dict[str, float], epoch: int) -> None:
        self.run.log(figures, step=epoch)

    def end(self, figures: dict[str, float], epoch: int, status: str, reason: str | None) -> None:
        self.run.log({**figures, "status": status, "reason": reason}, step=epoch)
        with contextlib.redirect_stdout(io.StringIO()):
            self.run.finish()
