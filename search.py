"""The searches that hydra_plugins/search_sweeper.py conducts: with Optuna or Ax, ask and tell.

A backend proposes trials, is told what came of them, and keeps all of it where the next process
finds it. Neither package is imported before it is needed.
"""

import logging
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from search_space import Choice, Interval, Space

# What the packages call the states of a trial; any other is running.
OPTUNA_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
AX_STATES = {"COMPLETED": "finished", "FAILED": "failed"}


@dataclass
class Trial:
    """One proposal: the overrides it stands for, by key, and what came of it."""

    number: int
    params: dict[str, Any]
    status: str = "running"  # or finished, pruned, failed
    values: tuple[float, ...] = ()  # of the objectives, in their order; once it is finished


class Pruned(Exception):
    """A trial that the search has seen enough of, and the figures that it has reached."""

    def __init__(self, history: list[dict[str, Any]]):
        super().__init__(f"pruned after epoch {len(history)}")
        seconds = sum(row["seconds"] for row in history)
        best = max(row["val_accuracy"] for row in history)
        self.figures = {"val_accuracy": best, "epochs": len(history), "seconds": round(seconds, 2)}


def report(cfg: DictConfig, history: list[dict[str, Any]]) -> None:
    """Tell the search, if there is one that prunes, how good a trial is after an epoch.

    `history` has a row of figures per epoch. Raises Pruned where the trial is not worth more of
    them. An epoch that was reported before the trial was resumed is not reported again.
    """
    if cfg.trial is None or not (job := HydraConfig.get()).sweeper.get("pruner"):
        return
    import optuna

    study = load_study(job.sweeper, Path(job.runtime.output_dir).parent)
    study.pruner = instantiate(job.sweeper.pruner)
    found = study.get_trials(deepcopy=False)[cfg.trial]
    trial = optuna.trial.Trial(study, found._trial_id)
    objective = job.sweeper.objectives[0]
    for step, row in enumerate(history):  # counted from 0, as pruners do
        if step not in found.intermediate_values:
            trial.report(row[objective], step)
    if len(history) < cfg.epochs and trial.should_prune():
        raise Pruned(history)


def load_study(settings: DictConfig, folder: Path):
    """The Optuna study in `folder`, or at the URL of `hydra.sweeper.storage`; created if needed."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = settings.storage
    if storage is None:
        path = folder / "search.journal"
        # The kernel releases this lock of a process that was killed; Optuna's own outlives it.
        lock = filelock.FileLock(f"{path}.lock")
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    return optuna.create_study(
        storage=storage,
        study_name=settings.study or folder.name,
        sampler=optuna.samplers.RandomSampler(),
        pruner=optuna.pruners.NopPruner(),
        directions=list(settings.directions),
        load_if_exists=True,
    )


class OptunaBackend:
    """Every trial is asked of a sampler of its own, seeded by its number: a search that was
    interrupted proposes what it would have proposed anyway."""

    def __init__(self, settings: DictConfig, folder: Path, space: Space):
        self.settings, self.space = settings, space
        self.study = load_study(settings, folder)

    def ask(self, count: int) -> list[Trial]:
        return [self._ask() for _ in range(count)]

    def _ask(self) -> Trial:
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = self._sampler(number)
        trial = self.study.ask()
        return Trial(trial.number, self._suggest(trial))

    def _sampler(self, number: int):
        with warnings.catch_warnings():  # some of them are called experimental
            warnings.simplefilter("ignore")
            return instantiate(self.settings.sampler, seed=1000 * self.settings.seed + number)

    def _suggest(self, trial) -> dict[str, Any]:
        """What was suggested before is suggested again."""
        params = {}
        for key, allowed in self.space.items():
            if isinstance(allowed, Choice):
                params[key] = trial.suggest_categorical(key, allowed.values)
            else:
                suggest = trial.suggest_int if allowed.is_whole else trial.suggest_float
                step = {"step": allowed.step} if allowed.step else {}
                params[key] = suggest(key, allowed.low, allowed.high, log=allowed.log, **step)
        return params

    def tell(self, trial: Trial) -> None:
        from optuna.trial import TrialState

        states = {status: TrialState[name] for name, status in OPTUNA_STATES.items()}
        values = list(trial.values) if trial.status == "finished" else None
        self.study.tell(trial.number, values, states[trial.status])

    def trials(self) -> list[Trial]:
        import optuna

        trials = []
        for found in self.study.get_trials(deepcopy=False):
            status, params = OPTUNA_STATES.get(found.state.name, "running"), found.params
            if status == "running":  # the process may have ended between two parameters
                self.study.sampler = self._sampler(found.number)
                params = self._suggest(optuna.trial.Trial(self.study, found._trial_id))
            values = tuple(found.values) if status == "finished" else ()
            trials.append(Trial(found.number, params, status, values))
        return trials


class AxBackend:
    """An Ax client, written into the folder after all that changes it."""

    def __init__(self, settings: DictConfig, folder: Path, space: Space):
        self.settings, self.space = settings, space
        client = _ax_client()
        self.path = Path(settings.storage or folder / "search.ax.json").absolute()
        if self.path.exists():
            self.client = client.load_from_json_file(str(self.path))
            self.client._random_seed = settings.seed  # which the file leaves out
            return
        self.client = client(random_seed=settings.seed)
        self.client.configure_experiment([_ax_parameter(*item) for item in space.items()])
        signs = {"maximize": "", "minimize": "-"}
        pairs = zip(settings.objectives, settings.directions, strict=True)
        self.client.configure_optimization(", ".join(signs[way] + name for name, way in pairs))
        self.client.configure_generation_strategy(
            settings.method, initialization_random_seed=settings.seed
        )

    def ask(self, count: int) -> list[Trial]:
        asked = self.client.get_next_trials(max_trials=count)
        self._save()
        return [Trial(number, self._exactly(params)) for number, params in asked.items()]

    def tell(self, trial: Trial) -> None:
        if trial.status == "finished":
            figures = dict(zip(self.settings.objectives, trial.values, strict=True))
            self.client.complete_trial(trial.number, raw_data=figures)
        else:
            self.client.mark_trial_failed(trial.number)
        self._save()

    def _save(self) -> None:
        partial = self.path.with_suffix(".partial")
        self.client.save_to_json_file(str(partial))
        os.replace(partial, self.path)

    def trials(self) -> list[Trial]:
        if not self.path.exists():
            return []
        trials = []
        for row in self.client.summarize().to_dict("records"):
            status = AX_STATES.get(row["trial_status"], "running")
            done = status == "finished"
            values = tuple(float(row[name]) for name in self.settings.objectives) if done else ()
            trials.append(Trial(row["trial_index"], self._exactly(row), status, values))
        return trials

    def _exactly(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: allowed.exactly(params[key]) for key, allowed in self.space.items()}


def _ax_client() -> type:
    """Ax's client class, without what importing it prints."""
    logging.disable(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ax.api.client import Client
        from ax.utils.common.logger import set_ax_logger_levels
    set_ax_logger_levels(logging.WARNING)
    logging.disable(logging.NOTSET)
    return Client


def _ax_parameter(key: str, allowed: Interval | Choice):
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    if isinstance(allowed, Choice):
        numeric = not isinstance(allowed.values[0], str)
        values = [float(value) for value in allowed.values] if numeric else list(allowed.values)
        is_ordered = numeric or len(values) == 2  # as Ax has it anyway, with a warning
        return ChoiceParameterConfig(key, values, "float" if numeric else "str", is_ordered)
    return RangeParameterConfig(
        key,
        bounds=(allowed.low, allowed.high),
        parameter_type="int" if allowed.is_whole else "float",
        step_size=allowed.step,
        scaling="log" if allowed.log else "linear",
    )


BACKENDS = {"optuna": OptunaBackend, "ax": AxBackend}


def backend(settings: DictConfig, folder: Path, space: Space) -> OptunaBackend | AxBackend:
    return BACKENDS[settings.backend](settings, folder, space)


def is_finite(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)
