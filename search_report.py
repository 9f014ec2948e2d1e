"""What came of a search: its best trial or Pareto front, a table of all, and figures."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from omegaconf import DictConfig, OmegaConf

import record
import results
from search import Trial
from search_space import Space, overrides

ENOUGH = 5  # finished trials, before the importance of a parameter means anything


def write(
    folder: Path, settings: DictConfig, fixed: list[str], space: Space, trials: list[Trial]
) -> None:
    """Print the table and the best; write both, and figures, into the sweep folder."""
    names, directions = list(settings.objectives), list(settings.directions)
    best = best_of(trials, directions)
    head, rows = table(folder, names, best, ranked(trials, directions))
    text = "\n".join(results.markdown(head, rows))
    record.write_text(folder / "trials.md", text + "\n")
    record.write_csv(folder / "trials.csv", [dict(zip(head, row, strict=True)) for row in rows])
    print(text)
    if not best:
        return
    count = Counter(trial.status for trial in trials)
    entries = [
        {
            "trial": trial.number,
            "values": dict(zip(names, trial.values, strict=True)),
            "params": trial.params,
            "command": command(fixed, trial),
        }
        for trial in best
    ]
    content = {
        "sweeper": settings.backend,
        "objectives": dict(zip(names, directions, strict=True)),
        "trials": dict(count),
        "best": entries,
    }
    record.write_text(folder / "optimization_results.yaml", OmegaConf.to_yaml(content))
    print("\nBest" if len(names) == 1 else "\nPareto front: none of these is beaten in everything")
    for entry in entries:
        values = ", ".join(f"{name} {figure(value)}" for name, value in entry["values"].items())
        print(f"  trial {entry['trial']}: {values}\n    {entry['command']}")
    draw(folder, settings, space, trials)


def best_of(trials: Sequence[Trial], directions: Sequence[str]) -> list[Trial]:
    """The first of the best trials; for several objectives all those that no other dominates."""
    finished = [trial for trial in trials if trial.status == "finished"]
    scores = {trial.number: score(trial, directions) for trial in finished}

    def is_beaten(own: tuple) -> bool:
        return any(
            other != own and all(a >= b for a, b in zip(other, own, strict=True))
            for other in scores.values()
        )

    front = [trial for trial in finished if not is_beaten(scores[trial.number])]
    return front[:1] if len(directions) == 1 else front


def score(trial: Trial, directions: Sequence[str]) -> tuple[float, ...]:
    """The values of a trial, turned so that more is better."""
    pairs = zip(trial.values, directions, strict=True)
    return tuple(value if way == "maximize" else -value for value, way in pairs)


def ranked(trials: Sequence[Trial], directions: Sequence[str]) -> list[Trial]:
    """The best in the first objective first; those without a value last."""
    finished = [trial for trial in trials if trial.status == "finished"]
    others = [trial for trial in trials if trial.status != "finished"]
    return sorted(finished, key=lambda t: score(t, directions), reverse=True) + others


def table(
    folder: Path, names: list[str], best: list[Trial], trials: list[Trial]
) -> tuple[list[str], list[list[str]]]:
    """A row per trial. What its run folder knows besides the values is read from there."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    head = ["trial", *names, *keys, "status", "epochs", "reason"]
    rows = []
    for trial in trials:
        run = results.read_one(folder / f"trial={trial.number}")
        values = list(map(figure, trial.values)) or [""] * len(names)
        cells = [short(trial.params.get(key, "")) for key in keys]
        status = "best" if trial in best else trial.status
        end = [status, str(run.get("epochs", "")), run.get("reason", "")]
        rows.append([str(trial.number), *values, *cells, *end])
    return head, rows


def figure(value: float) -> str:
    """Five digits; those of a count, like parameters, all."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.5g}"


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def command(fixed: Sequence[str], trial: Trial) -> str:
    """What trains a trial again, by itself, to the last digit."""
    asked = [line for line in fixed if not line.startswith("name=")]
    return shlex.join(["python", Path(sys.argv[0]).name, *asked, *overrides(trial.params)])


def draw(folder: Path, settings: DictConfig, space: Space, trials: list[Trial]) -> None:
    """history.png, and pareto.png or parallel.png; importance.png where there is enough to say."""
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
    """Every value, and the best so far, over the trials."""
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
    figure.savefig(path, dpi=150)


def draw_parallel(path: Path, name: str, space: Space, finished: list[Trial]) -> None:
    """A line per trial through its parameters, coloured by its value; the best are on top."""
    import matplotlib

    keys = list(space)
    values = numpy.array([trial.values[0] for trial in finished])
    ranks = values.argsort().argsort() / max(1, len(values) - 1)  # an outlier takes no colour away
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
    figure.savefig(path, dpi=150)


def draw_importance(path: Path, name: str, space: Space, finished: list[Trial]) -> None:
    """How much worse a forest that has learnt the trials predicts with one parameter shuffled."""
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
    axes.set_xlabel(f"share of what the parameters explain of {name}")
    figure.savefig(path, dpi=150)


def draw_pareto(path: Path, names: list[str], directions: list[str], finished: list[Trial]) -> None:
    """The first objective against each of the others; the front is numbered."""
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
    figure.savefig(path, dpi=150)


def new_figure(width: float, height: float, rows: int):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, squeeze=False)[:, 0]
