"""How a trial learns that its search prunes it."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from lab import ranks
from lab.build import make
from lab.run import Pruned


def report_to_search(trial: int | None, epochs: int, history: list[dict[str, Any]]) -> None:
    """Report the epochs of a trial to its search, if there is one with a pruner.

    `history` has a row of figures per finished epoch, of `epochs` in all. An epoch that was
    reported before the trial was resumed is not reported again. Raises Pruned, in all processes of
    the run, if the trial is not worth any more epochs.
    """
    if trial is None:
        return
    from lab import group  # not at the top: it imports torch

    is_over = ranks.current().is_first and _is_over(trial, epochs, history)
    if group.from_first(is_over):
        best = max(row["val_accuracy"] for row in history)
        seconds = round(sum(row["seconds"] for row in history), 2)
        figures = {"val_accuracy": best, "epochs": len(history), "seconds": seconds}
        raise Pruned(len(history), figures)


def _is_over(trial: int, epochs: int, history: list[dict[str, Any]]) -> bool:
    if not (job := HydraConfig.get()).sweeper.get("pruner"):
        return False
    import optuna

    from sweeps.optuna_backend import load_study

    study = load_study(job.sweeper, Path(job.runtime.output_dir).parent)
    study.pruner = make(job.sweeper.pruner, "hydra.sweeper.pruner")
    found = study.get_trials(deepcopy=False)[trial]
    reporter = optuna.trial.Trial(study, found._trial_id)
    objective = job.sweeper.objectives[0]
    for step, row in enumerate(history):  # counted from 0, as pruners do
        if step not in found.intermediate_values:
            reporter.report(row[objective], step)
    return len(history) < epochs and reporter.should_prune()
