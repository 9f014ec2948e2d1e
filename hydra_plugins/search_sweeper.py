"""A search instead of a grid: Optuna or Ax proposes trials, a launcher runs them.

Hydra finds sweepers only in a package of this name, and imports it at every start: keep it light.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import basic_launcher
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lab import files, record
from lab.composing import composed_once
from lab.errors import ConfigError, Refusal, RunFailed, explain
from lab.hints import nearest
from lab.schema import NOT_THE_EXPERIMENT
from sweeps import jobs, live, recipe, settings, space
from sweeps.table import formatted
from sweeps.trial import Trial, is_finite

ENDED = ("finished", "pruned", "failed")


class SearchSweeper(Sweeper):
    """Continues the search that is in the folder. Trial N has the folder trial=N and resumes there.

    Raises RunFailed at the end if no trial finished or too many failed.
    """

    def __init__(self, **_: Any):
        pass  # the settings are read from the config, where the jobs find them, too

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.settings = config.hydra.sweeper
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    @composed_once()
    def sweep(self, arguments: Sequence[str]) -> None:
        from sweeps import search_report

        settings.check(self.config)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        if "name" in self.config:
            jobs.check_name(self.config.name, parser.parse_overrides(arguments))
        params = [
            f"{key}={'null' if value is None else value}"
            for key, value in (self.settings.params or {}).items()
        ]
        self.fixed, self.space = space.parse([*params, *arguments], parser)
        self._try_configs()
        self.folder = Path(self.config.hydra.sweep.dir).absolute()
        jobs.enter(self.folder, self.folder.glob("trial=*"))
        with record.locked(self.folder), jobs.resumable(self.config):
            self._remember()
            self.backend = self._backend()
            with live.sweeping(self.folder, self.settings.n_trials):
                reason = self._search()
            trials = self.backend.trials()
            fixed = recipe.expanded(self.fixed, self._composed)
            search_report.write(self.folder, self.settings, fixed, self.space, trials)
        if reason:
            print(reason)
            raise RunFailed(reason)

    def _backend(self) -> Any:
        """Proposes trials, is told what they reached, and stores both in the folder."""
        from sweeps.ax_backend import AxBackend
        from sweeps.optuna_backend import OptunaBackend

        backend = {"optuna": OptunaBackend, "ax": AxBackend}[self.settings.backend]
        return backend(self.settings, self.folder, self.space)

    def _try_configs(self) -> None:
        """Compose some configs of the space, so that a wrong name is refused before any trial."""
        if not self.space:
            raise ConfigError(
                "There is nothing to search: give a range, for example "
                "optimizer.lr=tag(log,interval(1e-4,1e-1))."
            )
        examples = {key: allowed.examples() for key, allowed in self.space.items()}
        for number in range(max(map(len, examples.values()))):
            values = {key: each[number % len(each)] for key, each in examples.items()}
            self.hydra_context.config_loader.load_sweep_config(
                self.config, [*self.fixed, *space.overrides(values)]
            )

    def _composed(self, overrides: list[str]) -> DictConfig:
        """The config of a single run."""
        loader, name = self.hydra_context.config_loader, self.config.hydra.job.config_name
        return loader.load_configuration(name, overrides, run_mode=RunMode.RUN)

    def _remember(self) -> None:
        """Record what is searched. Raises Refusal if the folder holds another search, or a grid."""
        now = sorted(line for line in self.fixed if _group(line) not in NOT_THE_EXPERIMENT)
        now += [f"{key} from {allowed}" for key, allowed in sorted(self.space.items())]
        now += map(" ".join, zip(self.settings.directions, self.settings.objectives, strict=True))
        path = self.folder / "search.json"
        folders = {found.parent for found in self.folder.glob("*/result.json")}
        if folders - set(self.folder.glob("trial=*")):
            raise Refusal(f"{self.folder} holds a grid, not a search: use another name=.")
        before = record.read_json(path).get("search", now)
        if before != now:
            gone, new = (
                [line for line in a if line not in b] for a, b in ((before, now), (now, before))
            )
            raise Refusal(
                f"{self.folder} holds another search, with {'; '.join(gone) or 'nothing'} where "
                f"this one has {'; '.join(new) or 'nothing'}: give this one another name."
            )
        files.write_json(path, {"search": now})
        files.write_text(self.folder / "multirun.yaml", OmegaConf.to_yaml(self.config))

    def _search(self) -> str | None:
        """Ask, launch, tell, until there are `n_trials`. Returns why it gave up, if so."""
        basic_launcher.log.setLevel("WARNING")  # each trial is reported here
        if not getattr(self.launcher, "waits", True):
            raise ConfigError(
                "hydra.launcher.wait=false is not possible in a search, whose trials depend on "
                "the results of earlier ones: leave it out."
            )
        self._wait_for_earlier_jobs()
        n_trials = self.settings.n_trials
        while True:
            trials = self.backend.trials()
            count = Counter(trial.status for trial in trials)
            if count["failed"] > self.settings.max_failure_rate * n_trials:
                return (
                    f"{count['failed']} of {len(trials)} trials failed, more than "
                    f"hydra.sweeper.max_failure_rate={self.settings.max_failure_rate} of "
                    f"{n_trials} allows. Those that failed are not tried again: correct the cause "
                    "and give the search another name, or raise that rate."
                )
            batch = [trial for trial in trials if trial.status == "running"]
            if not batch:
                room = min(self.settings.parallel, n_trials - len(trials))
                batch = self.backend.ask(room) if room > 0 else []
            if not batch:
                return None if count["finished"] else "No trial finished."
            self._run(batch[: self.settings.parallel])

    def _wait_for_earlier_jobs(self) -> None:
        """Wait for the jobs that a command that was killed has left in a queue."""
        if hasattr(self.launcher, "queued") and (queued := self.launcher.queued()):
            self.launcher.wait(queued)

    def _run(self, batch: list) -> None:
        """Launch those of these trials that have no result yet, and tell the backend of all."""
        folders = {trial.number: self.folder / f"trial={trial.number}" for trial in batch}
        answers: dict[int, JobReturn] = {}
        jobs.wait_for(list(folders.values()))
        due = [t for t in batch if record.status(folders[t.number]) not in ENDED]
        for together in [[t] for t in due] if self._is_sequential() else [due]:
            for trial in together:
                params = ", ".join(f"{key}={formatted(v)}" for key, v in trial.params.items())
                print(f"trial {trial.number} of {self.settings.n_trials}: {params}", flush=True)
            if commands := [self._command(trial, folders[trial.number]) for trial in together]:
                found = self.launcher.launch(commands, initial_job_idx=together[0].number)
                answers |= {t.number: answer for t, answer in zip(together, found, strict=True)}
        for trial in batch:
            if record.status(folders[trial.number]) != "running":
                self._tell(trial, folders[trial.number], answers.get(trial.number))

    def _is_sequential(self) -> bool:
        """Whether the launcher runs one job after another."""
        return isinstance(self.launcher, basic_launcher.BasicLauncher)

    def _command(self, trial: Trial, folder: Path) -> list[str]:
        """The overrides of a trial."""
        number = [f"trial={trial.number}"] if "trial" in self.config else []
        own = space.overrides(trial.params)
        return [*self.fixed, *own, *number, f"hydra.sweep.subdir='{folder.name}'"]

    def _tell(self, trial: Trial, folder: Path, answer: JobReturn | None) -> None:
        """Tell the backend, and the terminal, what a trial reached."""
        trial.status, trial.values = self._outcome(folder, answer)
        if trial.status == "finished" and not is_finite(trial.values):
            trial.status = "failed"
        self.backend.tell(trial)
        values = ", ".join(
            f"{name} {formatted(value)}"
            for name, value in zip(self.settings.objectives, trial.values, strict=False)
        )
        params = ", ".join(f"{key}={formatted(value)}" for key, value in trial.params.items())
        status = "" if trial.status == "finished" else f" {trial.status}"
        print(f"trial {trial.number}{status}: {values or 'no value'}  ({params})", flush=True)

    def _outcome(self, folder: Path, answer: JobReturn | None) -> tuple[str, tuple]:
        """The result in the run folder if there is one, else what the function returned.

        Raises Refusal for an objective that is not a figure of the result, and for a run that no
        search can judge, since the disk was full.
        """
        result = record.result_and_status(folder)
        if result["status"] == "pruned":
            return "pruned", ()
        if result["status"] in ("failed", "damaged"):
            return "failed", ()
        if result["status"] == "interrupted" and "reason" in result:  # on a full disk
            raise Refusal(f"{folder.name} was interrupted: {result['reason']}")
        names = list(self.settings.objectives)
        if result["status"] == "finished":
            for name in names:
                if not isinstance(result.get(name), int | float):
                    figures = [key for key, value in result.items() if isinstance(value, float)]
                    raise Refusal(
                        f"hydra.sweeper.objectives: result.json has no figure {name}: it has "
                        f"{', '.join(figures)}.{nearest(name, figures)}"
                    )
            return "finished", tuple(result[name] for name in names)
        if answer is None or answer.status != JobStatus.COMPLETED:
            error = answer and answer._return_value
            if isinstance(error, Exception) and files.is_disk_full(error):
                raise Refusal(f"{folder.name} could not start: {explain(error) or error}")
            return "failed", ()
        returned = answer.return_value
        values = tuple(returned) if isinstance(returned, Sequence) else (returned,)
        return ("finished", values) if len(values) == len(names) else ("failed", ())


def _group(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition(".")[0]
