"""A sweep that can be given again: each job keeps its folder, and what is finished stays finished.

The grid is that of Hydra's own sweeper; a job's folder is named by its config instead of a number.
Hydra finds sweepers in a package of this name only, and imports it at every start: keep it light.
"""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from hydra._internal.core_plugins import basic_launcher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf, open_dict

from config.errors import ConfigError, RunFailed, explain
from config.schema import NOT_THE_EXPERIMENT


class ResumableSweeper(BasicSweeper):
    """Skips finished jobs, goes on with half-done ones, and runs the new and the failed.

    A job that fails leaves the others alone, unless `fail_fast=true`; the summary appears all the
    same. Raises RunFailed at the end if a job did not finish.
    """

    def sweep(self, arguments: Sequence[str]) -> None:
        import record
        import results

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        check_name(self.config.name, overrides)
        sweep_folder = Path(self.config.hydra.sweep.dir).absolute()
        folders = self._folders(overrides, sweep_folder)  # refuses what cannot be composed
        sweep_folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_folder / "multirun.yaml")
        queued = self.launcher.queued() if hasattr(self.launcher, "queued") else {}
        before = {
            folder: "queued" if folder.name in queued.values() else record.status(folder)
            for folder in folders
        }
        tell_before(before)
        self._launch(
            {
                folder.name: [*job, f"hydra.sweep.subdir='{folder.name}'"]
                for folder, job in folders.items()
                if before[folder] not in ("finished", "queued", "running")
            }
        )
        if queued:
            self.launcher.wait(queued)
        wait_for([folder for folder in folders if before[folder] == "running"])
        results.summarise([sweep_folder])
        if any(record.status(folder) != "finished" for folder in folders):
            raise RunFailed("not every job finished")

    def _launch(self, due: dict[str, list[str]]) -> None:
        """Run the jobs of these folders' names, and tell of each what came of it."""
        if not due:
            return
        if not isinstance(self.launcher, basic_launcher.BasicLauncher):
            self.launcher.launch(list(due.values()), initial_job_idx=0)
            return
        basic_launcher.log.setLevel("WARNING")  # what it says of a job is said here
        for number, (name, job) in enumerate(due.items()):
            print(f"{number + 1} of {len(due)}: {name}", flush=True)
            (answer,) = self.launcher.launch([job], initial_job_idx=number)
            tell(name, answer)
            if self.config.fail_fast and has_failed(answer):
                break

    def _folders(self, overrides: Sequence[Override], sweep_folder: Path) -> dict[Path, list[str]]:
        """The overrides of every job, by its folder: what sets it apart, and a hash of its config.

        A job that was there before keeps its folder, even if other things set it apart now.
        """
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


def check_name(name: str, overrides: Collection[Override]) -> None:
    """Refuse, by ConfigError, a name that is no folder of its own below runs/."""
    if any(
        override.key_or_group == "name" and override.is_sweep_override() for override in overrides
    ):
        raise ConfigError("name is one for the whole sweep: give a single one, without commas.")
    parts = Path(name).parts
    if not parts or ".." in parts:
        raise ConfigError(
            f"name={name} is not allowed: it must name a folder below runs/, like name=mine."
        )


def tell_before(status: dict[Path, str]) -> None:
    """Say how many jobs there are of each kind, and how many of them ran on other code."""
    import provenance

    count = Counter(status.values())
    print(
        f"{len(status)} jobs: {count['finished']} finished, {count['queued']} queued, "
        f"{count['running']} running elsewhere, {count['interrupted']} half-done, "
        f"{count['failed'] + count['damaged']} failed before, {count['new']} new"
    )
    now = (provenance.collect()["commit"], provenance.uncommitted_changes().encode())
    began = [folder for folder, word in status.items() if word in ("finished", "interrupted")]
    others = Counter(name_of(code) for folder in began if (code := code_of(folder)) != now)
    if others:
        print(
            f"{others.total()} of the finished and half-done ran on other code than that of now "
            f"({name_of(now)}): "
            + ", ".join(f"{number} on {name}" for name, number in others.items())
        )


def code_of(folder: Path) -> tuple[str | None, bytes]:
    """The commit that a run was on, and the changes to it that nobody had committed."""
    import record

    changes = folder / "changes.diff"
    commit = record.read_result(folder).get("commit")
    return commit, changes.read_bytes() if changes.exists() else b""


def name_of(code: tuple[str | None, bytes]) -> str:
    commit, changes = code
    return f"{(commit or 'no commit')[:9]}{' with uncommitted changes' if changes else ''}"


def wait_for(folders: Sequence[Path]) -> None:
    """Until no other process runs in these folders: jobs of a command that was ended run on."""
    import record

    waiting = [folder for folder in folders if record.status(folder) == "running"]
    if waiting:
        names = ", ".join(folder.name for folder in waiting)
        print(f"Waiting for what runs elsewhere: {names}. Ctrl-C ends the waiting, not the jobs.")
    while any(record.status(folder) == "running" for folder in waiting):
        time.sleep(1)


def has_failed(answer: JobReturn) -> bool:
    return answer.status == JobStatus.FAILED


def tell(name: str, answer: JobReturn) -> None:
    """One line for a job that ended, by the name of its folder."""
    outcome = answer._return_value
    if isinstance(outcome, RunFailed):
        print(f"{name} failed: {outcome}", flush=True)
    elif has_failed(answer):  # before the run could write down its own reason
        print(f"{name} failed: {explain(outcome) or repr(outcome)}", flush=True)
    elif isinstance(outcome, float):
        print(f"{name} ended: {outcome:.2%} on validation", flush=True)
    else:  # another function than script.py's, in a search
        print(f"{name} ended: {outcome}", flush=True)


def folder_name(overrides: Iterable[str]) -> str:
    pairs = (override.partition("=") for override in overrides)
    return next((value.strip("'") for key, _, value in pairs if key == "hydra.sweep.subdir"), "")


def died(reason: str) -> JobReturn:
    return JobReturn(status=JobStatus.FAILED, _return_value=RunFailed(reason))
