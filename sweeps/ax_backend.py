"""A search with Ax."""

import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lab import files, reading
from lab.cause import described
from lab.errors import Refusal
from sweeps.space import Choice, Interval, Space
from sweeps.trial import Trial

# What Ax calls the states of a trial; any other is running.
STATES = {"COMPLETED": "finished", "FAILED": "failed"}

MOST = 2**26  # bytes of the file; a trial takes some ten thousand


class AxBackend:
    """A search with Ax, whose client is saved in the folder after every change."""

    def __init__(self, settings: DictConfig, folder: Path, space: Space):
        self.settings, self.space = settings, space
        client = _ax_client()
        self.path = Path(settings.storage or folder / "search.ax.json").absolute()
        if self.path.exists():
            self.client = self._load(client)
            self.client._random_seed = settings.seed  # which is not in the file
            return
        self.client = client(random_seed=settings.seed)
        self.client.configure_experiment([_ax_parameter(*item) for item in space.items()])
        signs = {"maximize": "", "minimize": "-"}
        pairs = zip(settings.objectives, settings.directions, strict=True)
        self.client.configure_optimization(", ".join(signs[way] + name for name, way in pairs))
        self.client.configure_generation_strategy(
            settings.method, initialization_random_seed=settings.seed
        )

    def _load(self, client: type) -> Any:
        """The client in the file, out of which Ax builds classes of its own registry alone.

        Raises Refusal for anything but a regular file of JSON that Ax has written.
        """
        reading.read_json(self.path, MOST)
        try:
            return client.load_from_json_file(str(self.path))
        except Exception as error:  # whatever a damaged file provokes
            raise Refusal(
                f"{self.path} is damaged: Ax cannot read it ({described(error)}). Restore it from "
                "a backup, or remove it: trials are then proposed again, and take the results of "
                "their run folders."
            ) from error

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
        with tempfile.TemporaryDirectory() as scratch, files.replacing(self.path) as file:
            copy = Path(scratch, "search.json")  # Windows does not open an open file again
            self.client.save_to_json_file(str(copy))
            file.write(copy.read_bytes())

    def trials(self) -> list[Trial]:
        if not self.path.exists():
            return []
        trials = []
        for row in self.client.summarize().to_dict("records"):
            status = STATES.get(row["trial_status"], "running")
            done = status == "finished"
            values = tuple(float(row[name]) for name in self.settings.objectives) if done else ()
            trials.append(Trial(row["trial_index"], self._exactly(row), status, values))
        return trials

    def _exactly(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: allowed.exactly(params[key]) for key, allowed in self.space.items()}


def _ax_client() -> type:
    """Ax's client class, imported without the warnings that it prints."""
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
        is_ordered = numeric or len(values) == 2  # as Ax decides by itself, with a warning
        return ChoiceParameterConfig(key, values, "float" if numeric else "str", is_ordered)
    return RangeParameterConfig(
        key,
        bounds=(allowed.low, allowed.high),
        parameter_type="int" if allowed.is_whole else "float",
        step_size=allowed.step,
        scaling="log" if allowed.log else "linear",
    )
