"""Weights & Biases, online or, with mode: offline, in files that `wandb sync` uploads."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.extras import require
from lab.trackers import Description

# Exit codes, which W&B shows as finished or failed; a run that is stopped may be resumed.
CODES = {"finished": 0, "pruned": 0, "failed": 1, "interrupted": 130}
# By default, W&B waits for ever for an upload, prints a summary, captures the terminal, watches the
# processor and copies the code. Variables WANDB_… that you have set are kept.
SETTINGS: dict[str, Any] = {
    "init_timeout": 30,
    "finish_timeout": 45,
    "finish_timeout_raises": True,
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "symlink": False,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 1,
}
BLOCK, HEADER = 2**15, 7  # of a .wandb file: bytes of a block, and before the first record


class WandB:
    """A run of a project, whose id W&B lets us choose. Its files are in the run folder."""

    def __init__(self, project: str, entity: str | None = None, mode: str | None = None):
        require("wandb", "logger=wandb")
        self.project, self.entity, self.mode = project, entity, mode

    def start(self, run: Description) -> int:
        if (settings := run.folder / "wandb/settings").exists():
            raise ValueError(f"{settings} would choose a server: remove it")
        import wandb

        general = wandb.setup().settings
        mode = self.mode or general.mode
        is_online = mode in ("online", "shared", "run")
        if is_online:
            _check_login(general.base_url)
        own = {key: value for key, value in SETTINGS.items() if _variable(key) not in os.environ}
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            id=run.id,
            name=run.name,
            group=run.group,
            config=run.config,
            dir=str(run.folder),
            resume="allow" if is_online else None,
            reinit="create_new",  # the program that trains may have a run of its own
            settings=wandb.Settings(**own),
        )
        return self.run.starting_step - 1 if self.run.resumed else _last_step(run)

    def log(self, figures: dict[str, float], epoch: int) -> None:
        self.run.log(figures, step=epoch, commit=True)

    def end(self, figures: dict[str, float], epoch: int, status: str, reason: str | None) -> None:
        self.run.summary.update({**figures, "status": status, "reason": reason})
        self.run.finish(exit_code=CODES[status])


def _variable(setting: str) -> str:
    name = f"_{setting.removeprefix('x_')}" if setting.startswith("x_") else setting
    return f"WANDB_{name}".upper()


def _check_login(server: str) -> None:
    """Raises ValueError where W&B would ask for a key, and wait for it."""
    from wandb.sdk.lib import wbauth

    if not wbauth.authenticate_session(host=server, source="logger=wandb", prompt=False):
        raise ValueError(
            f"there is no key for {server}: run `wandb login`, or set logger.wandb.mode=offline"
        )


def _last_step(run: Description) -> int:
    """The last epoch in the files of the earlier parts of an offline run."""
    paths = run.folder.glob(f"wandb/offline-run-*/run-{run.id}.wandb")
    return max((step for path in paths for step in _steps(path)), default=0)


def _steps(path: Path) -> Iterator[int]:
    """The steps in a .wandb file, whose end may be missing."""
    from wandb.proto.wandb_internal_pb2 import Record

    for content in _records(path.read_bytes()):
        record = Record.FromString(content)
        if record.WhichOneof("record_type") == "history":
            yield record.history.step.num


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: each in one chunk (1) or several (2, 3 … 4), each
    chunk with checksum, length and kind before it, and none across the border of a block."""
    position, record = HEADER, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        start, position = position + 7, position + 7 + length
        if position > len(data) or kind not in (1, 2, 3, 4):
            return
        record = data[start:position] if kind in (1, 2) else record + data[start:position]
        if kind in (1, 4):
            yield record
