"""The figures of a search."""

from pathlib import Path

import numpy
from omegaconf import DictConfig

from sweeps.figure import save
from sweeps.space import Space
from sweeps.trial import Trial, best_of

ENOUGH = 5  # finished trials, below which the importance of a parameter means nothing


def draw(folder: Path, settings: DictConfig, space: Space, trials: list[Trial]) -> None:
    """Draw history.png and parallel.png; pareto.png for several objectives; importance.png if there
    are enough trials."""
    names, directions = list(settings.objectives), list(settings.directions)
    finished = [trial for trial in trials if trial.status == "finished"]
    draw_history(folder / "history.png", names, directions, finished)
    draw_parallel(folder / "parallel.png", names[0], space, finished)
    if len(names) > 1:
        draw_pareto(folder / "pareto.png", names, directions, finished)
    values = [trial.values[0] for trial in finished]
    if len(finished) >= ENOUGH and len(set(values)) > 1:
        draw_importance(folder / "importance.png", names[0], space, finished)


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
        axes.grid(alpha=0.3)
    panels[0].legend()
    panels[-1].set_xlabel("trial")
    save(figure, path)


def draw_parallel(path: Path, name: str, space: Space, finished: list[Trial]) -> None:
    """A line per trial through its parameters, coloured by rank; the best are on top."""
    import matplotlib

    keys = list(space)
    values = numpy.array([trial.values[0] for trial in finished])
    ranks = values.argsort().argsort() / max(1, len(values) - 1)  # an outlier takes no colours
    figure, (axes,) = new_figure(2 + 1.6 * len(keys), 4, 1)
    colors = matplotlib.colormaps["viridis"]
    for index in values.argsort():
        heights = [space[key].position(finished[index].params[key]) for key in keys]
        axes.plot(range(len(keys)), heights, color=colors(ranks[index]), marker="o", markersize=4)
    for column, key in enumerate(keys):
        for height, label in space[key].ticks():
            axes.annotate(label, (column, height), (4, 4), textcoords="offset points", fontsize=7)
        axes.axvline(column, color="0.8", zorder=0)
    axes.set_xticks(range(len(keys)), keys, rotation=15)
    axes.set_yticks([])
    scale = matplotlib.cm.ScalarMappable(cmap=colors)
    bar = figure.colorbar(scale, ax=axes, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels([f"{numpy.quantile(values, q):.4g}" for q in (0, 0.5, 1)])
    bar.set_label(f"{name}, by rank")
    save(figure, path)


def draw_importance(path: Path, name: str, space: Space, finished: list[Trial]) -> None:
    """The permutation importance of each parameter for a random forest fitted to the trials."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    points = [[space[key].position(trial.params[key]) for key in space] for trial in finished]
    values = [trial.values[0] for trial in finished]
    forest = RandomForestRegressor(random_state=0).fit(points, values)
    drop = permutation_importance(forest, points, values, n_repeats=20, random_state=0)
    shares = drop.importances_mean.clip(0) / max(drop.importances_mean.clip(0).sum(), 1e-12)
    order = shares.argsort()
    figure, (axes,) = new_figure(6, 1 + 0.4 * len(space), 1)
    axes.barh([list(space)[index] for index in order], shares[order])
    axes.set_xlabel(f"importance for {name}, as a share of the sum")
    save(figure, path)


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
        axes.set_xlabel(f"{names[column]} ({directions[column]})")
        axes.set_ylabel(f"{names[0]} ({directions[0]})")
        axes.grid(alpha=0.3)
    save(figure, path)


def new_figure(width: float, height: float, rows: int):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, squeeze=False)[:, 0]
