"""A search with Optuna."""

import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lab.build import make
from lab.cause import described
from lab.errors import ConfigError, Refusal
from sweeps.space import Choice, Space
from sweeps.trial import Trial

# What Optuna calls the states of a trial; any other is running.
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}


def load_study(settings: DictConfig, folder: Path):
    """The Optuna study in `folder`, or at the URL of `hydra.sweeper.storage`; created if needed.

    Raises ConfigError if the storage cannot be used.
    """
    import optuna

    from sweeps.journal import Journal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, path = settings.storage, folder / "search.journal"
    try:
        if storage is None:
            storage = optuna.storages.JournalStorage(Journal(path))
        return optuna.create_study(
            storage=storage,
            study_name=settings.study or folder.name,
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
            directions=list(settings.directions),
            load_if_exists=True,
        )
    except (Refusal, OSError):
        raise
    except Exception as error:  # whatever a database or a damaged file provokes
        where = f"hydra.sweeper.storage={settings.storage}" if settings.storage else str(path)
        raise ConfigError(
            f"{where} cannot be used ({described(error)}): give a URL that SQLAlchemy understands, "
            "like sqlite:////home/me/search.db, or null for a file in the sweep folder."
        ) from error


class OptunaBackend:
    """A search with Optuna. Each trial has its own sampler, seeded by the number of the trial: a
    search that was interrupted proposes the same trials as one that was not."""

    def __init__(self, settings: DictConfig, folder: Path, space: Space):
        self.settings, self.space = settings, space
        self._sampler(0)
        if settings.get("pruner"):  # the trials use it; here it is only checked
            make(settings.pruner, "hydra.sweeper.pruner")
        self.study = load_study(settings, folder)

    def ask(self, count: int) -> list[Trial]:
        return [self._ask() for _ in range(count)]

    def _ask(self) -> Trial:
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = self._sampler(number)
        trial = self.study.ask()
        return Trial(trial.number, self._suggest(trial))

    def _sampler(self, number: int):
        with warnings.catch_warnings():  # that a sampler is experimental
            warnings.simplefilter("ignore")
            seed = 1000 * self.settings.seed + number
            return make(self.settings.sampler, "hydra.sweeper.sampler", seed=seed)

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

    def _repeated(self, number: int):
        """A sampler that suggests for a trial what it was, or would have been, suggested.

        It is asked in a copy of the study in which the trial is new: where some of its parameters
        are known already, another sampler would draw the others by the numbers meant for those.
        """
        import optuna

        copy = optuna.create_study(
            sampler=self._sampler(number), directions=list(self.settings.directions)
        )
        copy.add_trials(self.study.get_trials()[:number])
        params = self._suggest(copy.ask())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.samplers.PartialFixedSampler(params, optuna.samplers.RandomSampler())

    def tell(self, trial: Trial) -> None:
        from optuna.trial import TrialState

        states = {status: TrialState[name] for name, status in STATES.items()}
        values = list(trial.values) if trial.status == "finished" else None
        self.study.tell(trial.number, values, states[trial.status])

    def trials(self) -> list[Trial]:
        import optuna

        trials = []
        for found in self.study.get_trials(deepcopy=False):
            status, params = STATES.get(found.state.name, "running"), found.params
            if status == "running":  # the process may have died between two parameters
                self.study.sampler = self._repeated(found.number)
                params = self._suggest(optuna.trial.Trial(self.study, found._trial_id))
            values = tuple(found.values) if status == "finished" else ()
            trials.append(Trial(found.number, params, status, values))
        return trials
