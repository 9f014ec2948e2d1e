"""A sweep that can be given again: each job keeps its folder, and what is finished stays finished.

The grid is that of Hydra's own sweeper; a job's folder is named by its config instead of a number.
Hydra finds sweepers in a package of this name only, and imports it at every start: keep it light.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from config.schema import NOT_THE_EXPERIMENT


class ResumableSweeper(BasicSweeper):
    """Skips finished jobs, goes on with half-done ones, and runs the new and the failed.

    A job that fails leaves the others alone, unless `fail_fast=true`; the summary appears all the
    same. Raises RunFailed at the end if a job did not finish.
    """

    def sweep(self, arguments: Sequence[str]) -> None:
        import record
        import results
        from config.errors import RunFailed

        sweep_folder = Path(self.config.hydra.sweep.dir).absolute()
        sweep_folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_folder / "multirun.yaml")
        queued = self.launcher.queued() if hasattr(self.launcher, "queued") else {}
        folders = self._folders(arguments, sweep_folder)
        due = self._due(folders, set(queued.values()))
        if self.config.fail_fast and isinstance(self.launcher, BasicLauncher):
            for number, (folder, job) in enumerate(due.items()):
                self.launcher.launch([job], initial_job_idx=number)
                if record.status(folder) != "finished":
                    break
        elif due:
            self.launcher.launch(list(due.values()), initial_job_idx=0)
        if queued:
            self.launcher.wait(queued)
        results.summarise([sweep_folder])
        started = [folder for folder in folders if folder in due or folder.name in queued.values()]
        if any(record.status(folder) != "finished" for folder in started):
            raise RunFailed("not every job finished")

    def _folders(self, arguments: Sequence[str], sweep_folder: Path) -> dict[Path, list[str]]:
        """The overrides of every job, by its folder: what sets it apart, and a hash of its config.

        A job that was there before keeps its folder, even if other things set it apart now.
        """
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (grid,) = self.split_arguments(overrides, max_batch_size=None)
        common = set.intersection(*map(set, grid))
        folders = {}
        for job in grid:
            digest = self._hash(job)
            apart = ",".join(override for override in job if override not in common) or "job"
            name = re.sub(r"[^\w.,=+-]", "_", apart)[:100] + f"-{digest}"
            before = next(sweep_folder.glob(f"*-{digest}"), None)
            folders[before or sweep_folder / name] = job
        if twice := len(grid) - len(folders):
            print(f"{twice} of the {len(grid)} jobs have the config of another: run once.")
        return folders

    def _hash(self, job: Sequence[str]) -> str:
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
        with open_dict(cfg):
            for key in ("hydra", *NOT_THE_EXPERIMENT):
                del cfg[key]
        content = json.dumps(OmegaConf.to_container(cfg, resolve=True), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def _due(self, folders: dict[Path, list[str]], queued: set[str]) -> dict[Path, list[str]]:
        """The jobs to launch, by folder; tells how many there are of each kind.

        `queued` names the folders of those that an earlier command left with the launcher.
        """
        import record

        status = {
            folder: "queued" if folder.name in queued else record.status(folder)
            for folder in folders
        }
        count = Counter(status.values())
        print(
            f"{len(folders)} jobs: {count['finished']} finished, {count['queued']} queued, "
            f"{count['running']} running elsewhere, {count['interrupted']} half-done, "
            f"{count['failed']} failed before, {count['new']} new"
        )
        commit = record.provenance()["commit"]
        finished = [folder for folder in folders if status[folder] == "finished"]
        others = [f for f in finished if record.read_result(f).get("commit") != commit]
        if others:
            print(f"{len(others)} of the finished ran on another commit than {commit}.")
        return {
            folder: [*job, f"hydra.sweep.subdir='{folder.name}'"]
            for folder, job in folders.items()
            if status[folder] not in ("finished", "queued", "running")
        }
