"""The figures of a search, with Optuna or Ax.

Optuna draws the importance of parameters. Its other figures are not used: its parallel coordinates
print the values over one another, and its history and Pareto front do not say which trial is which.
"""

import warnings
from pathlib import Path

import numpy
from omegaconf import DictConfig

from lab.files import write_bytes
from sweeps.drawing import rendered
from sweeps.figure import shortened
from sweeps.space import Choice, Interval, Space
from sweeps.trial import Trial, best_of

ENOUGH = 5  # finished trials, below which the importance of a parameter means nothing
LONGEST = 22  # characters of a value beside its axis
MOST_VALUES = 9  # of a choice; more would be printed over one another


def draw(folder: Path, settings: DictConfig, space: Space, trials: list[Trial]) -> None:
    """Draw history.png and parallel.png; pareto.png for several objectives; importance.png if there
    are enough trials."""
    names, directions = list(settings.objectives), list(settings.directions)
    finished = [trial for trial in trials if trial.status == "finished"]
    draw_history(folder / "history.png", names, directions, finished)
    draw_parallel(folder / "parallel.png", names[0], directions[0], space, finished)
    if len(names) > 1:
        draw_pareto(folder / "pareto.png", names, directions, finished)
    values = [trial.values[0] for trial in finished]
    if len(finished) >= ENOUGH and len(set(values)) > 1:
        draw_importance(folder / "importance.png", names[0], directions[0], space, finished)


def draw_history(
    path: Path, names: list[str], directions: list[str], finished: list[Trial]
) -> None:
    """The value of each trial, and the best so far."""
    figure, panels = new_figure(6, 1 + 2.5 * len(names), len(names))
    numbers = [trial.number for trial in finished]
    for index, axes in enumerate(panels):
        values = [trial.values[index] for trial in finished]
        so_far = numpy.maximum if directions[index] == "maximize" else numpy.minimum
        axes.scatter(numbers, values, s=20, label="trial")
        axes.step(numbers, so_far.accumulate(values), where="post", color="C1", label="best so far")
        axes.set_ylabel(names[index])
        axes.ticklabel_format(useOffset=False)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set_xlim(min(numbers) - 0.5, max(numbers) + 0.5)
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    panels[-1].set_xlabel("trial")
    write_bytes(path, rendered(figure))


def draw_parallel(
    path: Path, name: str, direction: str, space: Space, finished: list[Trial]
) -> None:
    """A line per trial through its parameters, coloured by rank; the best are on top."""
    import matplotlib

    keys = list(space)
    values = numpy.array([trial.values[0] for trial in finished])
    order = values.argsort() if direction == "maximize" else (-values).argsort()
    ranks = order.argsort() / max(1, len(values) - 1)  # so an outlier does not use up the colours
    figure, (axes,) = new_figure(2.6 + 1.6 * len(keys), 4, 1)
    colors = matplotlib.colormaps["viridis"]
    for index in order:
        heights = [space[key].position(finished[index].params[key]) for key in keys]
        axes.plot(range(len(keys)), heights, color=colors(ranks[index]), marker="o", markersize=4)
    ground = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for column, key in enumerate(keys):
        for height, label in space[key].ticks()[:MOST_VALUES]:
            point, text = (column, height), shortened(label, LONGEST)
            style = {"textcoords": "offset points", "fontsize": 7, "parse_math": False}
            axes.annotate(text, point, (5, 0), va="center", bbox=ground, zorder=4, **style)
        axes.axvline(column, color="0.8", zorder=0)
    axes.set_xlim(-0.25, len(keys) - 0.15)
    labels = [shortened(key, LONGEST) for key in keys]
    axes.set_xticks(range(len(keys)), labels, rotation=15, parse_math=False)
    axes.set_yticks([])
    if len(set(values)) > 1:
        scale = matplotlib.cm.ScalarMappable(cmap=colors)
        bar = figure.colorbar(scale, ax=axes, ticks=[0, 0.5, 1])
        best_last = values[order]
        marks = (best_last[0], numpy.median(values), best_last[-1])
        bar.ax.set_yticklabels([f"{mark:.4g}" for mark in marks])
        bar.set_label(f"{name}, by rank")
    write_bytes(path, rendered(figure))


def draw_importance(
    path: Path, name: str, direction: str, space: Space, finished: list[Trial]
) -> None:
    """The share of each parameter in the variance of the values, as fANOVA estimates it."""
    import matplotlib
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction)
    distributions = {key: distribution(allowed) for key, allowed in space.items()}
    study.add_trials(
        optuna.trial.create_trial(
            params=trial.params, distributions=distributions, value=trial.values[0]
        )
        for trial in finished
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings(), matplotlib.rc_context({"backend": "agg"}):
        warnings.simplefilter("ignore")  # that the figure is experimental
        from matplotlib import pyplot

        axes = optuna.visualization.matplotlib.plot_param_importances(
            study, evaluator=evaluator, target_name=name
        )
        axes.set_title("", loc="left")
        axes.set(ylabel="", xlabel=f"importance for {name}, as a share of the sum")
        axes.get_legend().remove()
        axes.figure.set_size_inches(7, 1 + 0.4 * len(space))
        axes.figure.set_layout_engine("constrained")
        write_bytes(path, rendered(axes.figure))
        pyplot.close(axes.figure)


def distribution(allowed: Interval | Choice):
    """What Optuna calls the values that are allowed for a parameter."""
    from optuna import distributions

    if isinstance(allowed, Choice):
        return distributions.CategoricalDistribution(allowed.values)
    kind = distributions.IntDistribution if allowed.is_whole else distributions.FloatDistribution
    step = {"step": allowed.step} if allowed.step else {}
    return kind(allowed.low, allowed.high, log=allowed.log, **step)


def draw_pareto(path: Path, names: list[str], directions: list[str], finished: list[Trial]) -> None:
    """The first objective against each of the others; trials on the front are numbered."""
    front = best_of(finished, directions)
    figure, panels = new_figure(6, 4 * (len(names) - 1), len(names) - 1)
    for column, axes in enumerate(panels, start=1):
        for trials, color in ((finished, "0.7"), (front, "C1")):
            axes.scatter(
                [trial.values[column] for trial in trials],
                [trial.values[0] for trial in trials],
                c=color,
            )
        for trial in front:
            point = (trial.values[column], trial.values[0])
            axes.annotate(str(trial.number), point, (4, 4), textcoords="offset points")
        axes.ticklabel_format(useOffset=False)
        axes.margins(0.08)
        axes.set_xlabel(f"{names[column]} ({directions[column]})")
        axes.set_ylabel(f"{names[0]} ({directions[0]})")
        axes.grid(alpha=0.3)
    write_bytes(path, rendered(figure))


def new_figure(width: float, height: float, rows: int):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, squeeze=False)[:, 0]
