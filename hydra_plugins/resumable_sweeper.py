"""A grid sweep that can be resumed: the same command skips the jobs that are finished.

The grid is that of Hydra's own sweeper, but a job's folder is named by its config, not a number.
Hydra finds sweepers only in a package of this name, and imports it at every start: keep it light.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins import basic_launcher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict

from lab import files, record
from lab.composing import composed_once
from lab.errors import ConfigError, Refusal, RunFailed
from lab.schema import ADDED, NOT_THE_EXPERIMENT
from sweeps import jobs, live, settings

LETTERS = r"\w.,=+-"  # in the name of a folder; Hydra would interpolate others, or misread them
LONGEST = 100  # bytes of a folder's name before the hash: file systems allow 255, some 143


class ResumableSweeper(BasicSweeper):
    """Skips finished jobs, resumes interrupted ones, runs new ones, and retries failed ones.

    A job that fails does not stop the others, unless `fail_fast=true`, and the summary is printed
    in any case. Raises RunFailed at the end if a job did not finish.
    """

    @composed_once()
    def sweep(self, arguments: Sequence[str]) -> None:
        from sweeps.summary import summarise

        settings.check_params(self.params)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        jobs.check_name(self.config.name, overrides)
        sweep_folder = Path(self.config.hydra.sweep.dir).absolute()
        folders = self._folders(overrides, sweep_folder)  # refuses configs that do not compose
        if (sweep_folder / "search.json").exists():
            raise Refusal(f"{sweep_folder} holds a search, not a grid: use another name=.")
        with jobs.resumable(self.config):
            jobs.enter(sweep_folder, folders)
            with live.sweeping(sweep_folder, len(folders)):
                self._run(folders, sweep_folder)
        if self._waits() or any(sweep_folder.glob("*/result.json")):
            print()
            summarise([sweep_folder])
        if not self._waits():
            shown = record.shown(sweep_folder)
            print(
                f"Jobs that are queued or running: squeue --me. Results: python results.py {shown}"
            )
            return
        if any(record.status(folder) != "finished" for folder in folders):
            raise RunFailed("not every job finished")

    def _run(self, folders: dict[Path, list[str]], sweep_folder: Path) -> None:
        """Run those of these jobs that are not finished, and wait for those that run elsewhere."""
        files.write_text(sweep_folder / "multirun.yaml", OmegaConf.to_yaml(self.config))
        queued = self.launcher.queued() if hasattr(self.launcher, "queued") else {}
        before = {
            folder: "queued" if folder.name in queued.values() else record.status(folder)
            for folder in folders
        }
        jobs.announce(before)
        self._launch(
            {
                folder.name: [*job, f"hydra.sweep.subdir='{folder.name}'"]
                for folder, job in folders.items()
                if before[folder] not in ("finished", "queued", "running")
            }
        )
        if self._waits():
            if queued:
                self.launcher.wait(queued)
            jobs.wait_for(list(folders))

    def _waits(self) -> bool:
        """Whether the command waits for its jobs; hydra.launcher.wait=false only submits them."""
        return getattr(self.launcher, "waits", True)

    def _launch(self, due: dict[str, list[str]]) -> None:
        """Run these jobs, given by the names of their folders."""
        if not due:
            return
        if not isinstance(self.launcher, basic_launcher.BasicLauncher):
            self.launcher.launch(list(due.values()), initial_job_idx=0)
            return
        basic_launcher.log.setLevel("WARNING")  # each job reports itself
        for number, (name, job) in enumerate(due.items()):
            print(f"\njob {number + 1} of {len(due)}", flush=True)
            (answer,) = self.launcher.launch([job], initial_job_idx=number)
            if not jobs.has_reported(answer):
                print(jobs.outcome(name, answer), flush=True)
            if self.config.fail_fast and jobs.has_failed(answer):
                break

    def _folders(self, overrides: Sequence[Override], sweep_folder: Path) -> dict[Path, list[str]]:
        """The overrides of every job by its folder, whose name has what distinguishes the job from
        the others, and a hash of its config. Of jobs with the same config, the first counts.

        A job that already has a folder keeps it, even if its name would now be another one.
        """
        (grid,) = self.split_arguments(overrides, max_batch_size=None)
        if not grid:
            raise ConfigError(
                "The sweep has no job: one of its keys has no value, as range(0) has none."
            )
        common = set.intersection(*map(set, grid))
        by_hash: dict[str, Sequence[str]] = {}
        for job in grid:
            by_hash.setdefault(self._hash(job), job)
        folders = {}
        for digest, job in by_hash.items():
            apart = ",".join(override for override in job if override not in common) or "job"
            legible = (
                re.sub(rf"[^{LETTERS}]", "_", apart).encode()[:LONGEST].decode(errors="ignore")
            )
            name = f"{legible}-{digest}"
            before = (path.name for path in sorted(sweep_folder.glob(f"*-{digest}")))
            is_ours = re.compile(f"[{LETTERS}]+").fullmatch
            folders[sweep_folder / next(filter(is_ours, before), name)] = job
        if twice := len(grid) - len(folders):
            print(f"{twice} of the {len(grid)} jobs are skipped: they have the config of another.")
        return folders

    def _hash(self, job: Sequence[str]) -> str:
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
        with open_dict(cfg):
            for key in ("hydra", *NOT_THE_EXPERIMENT):
                del cfg[key]
        config = OmegaConf.to_container(cfg, resolve=True)
        for key, meant in ADDED.items():  # the hash of an older config stays what it was
            group, _, name = key.rpartition(".")
            node = config[group] if group else config
            if name in node and node[name] == meant:
                del node[name]
        content = json.dumps(config, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]
