"""Hydra callbacks, off by default: `hydra/callbacks=clean_git`. `Announce` is an example.

Hydra turns an exception in a callback into a warning. Only SystemExit stops the command.
"""

import logging
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lab import provenance, repository

log = logging.getLogger(__name__)


class CleanGit(Callback):
    """Refuse to start while the repository has uncommitted changes or untracked files."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._check()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._check()

    def _check(self) -> None:
        try:
            changes = provenance.changed_files()
        except repository.GitError as error:
            raise SystemExit(
                f"git does not say whether {provenance.PROJECT} is clean: {error}\n"
                "Without git, no commit identifies the code: make git work here, or leave "
                "hydra/callbacks=clean_git out."
            ) from None
        if changes:
            raise SystemExit(
                f"The git repository is not clean:\n{changes}\n"
                "Commit or remove these files, or leave hydra/callbacks=clean_git out."
            )


class Announce(Callback):
    """The smallest useful callback: log the status of a job when it ends."""

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        log.info("job ended: %s", job_return.status.name)
