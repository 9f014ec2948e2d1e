"""Hydra callbacks, off by default: `hydra/callbacks=clean_git`. `Announce` shows how to write one.

A callback's ordinary exception is only a warning for Hydra; SystemExit stops the command.
"""

import logging
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

import provenance

log = logging.getLogger(__name__)


class CleanGit(Callback):
    """Refuse to start unless the commit tells all of the code, untracked files included."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._check()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._check()

    def _check(self) -> None:
        changes = provenance.changed_files()
        if changes is None:
            raise SystemExit(
                f"{provenance.PROJECT} is not in a git repository, so no commit tells what "
                "would run: make one, or leave hydra/callbacks=clean_git out."
            )
        if changes:
            raise SystemExit(
                f"The git repository is not clean:\n{changes}\n"
                "Commit or remove these files, or leave hydra/callbacks=clean_git out."
            )


class Announce(Callback):
    """The smallest one that does something: say what a job returned, when it ends."""

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        log.info("job ended: %s", job_return.status.name)
