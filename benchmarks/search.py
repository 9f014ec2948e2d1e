"""A search recipe against the default config and against random search with the same budget.

    python benchmarks/search.py                      both recipes, 30 trials, 3 repeats
    python benchmarks/search.py optuna_mlp --trials 2 --repeats 1 limit=200 epochs=1

Validation chooses the best trial, its test accuracy is reported: mean ± std over the repeats, each
with another seed of the search and of the runs. All figures are read from run folders, which lie
below runs/benchmark_search: the same command goes on after an interruption.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent
AT_RANDOM = {
    "optuna_mlp": "hydra/sweeper/sampler=random",
    "ax_mlp": "hydra.sweeper.method=random_search",
}
FIGURES = ("val_accuracy", "test_accuracy", "seconds")


def run(*words: str) -> None:
    subprocess.run([sys.executable, str(PROJECT / "script.py"), *words], check=True)


def default(recipe: str, seed: int, words: list[str]) -> dict[str, float]:
    """The figures of the recipe's own config, with nothing searched."""
    folder = Path(f"runs/benchmark_search/{recipe}_default_{seed}")
    if (folder / "config.yaml").exists():
        run(f"resume={folder}")
    else:
        run(f"sweep={recipe}", f"seed={seed}", *words, f"hydra.run.dir={folder}")
    return json.loads((folder / "result.json").read_text())


def searched(recipe: str, way: str, seed: int, words: list[str]) -> dict[str, float]:
    """The figures of the best trial; `seconds` of all."""
    name = f"benchmark_search/{recipe}_{way}_{seed}"
    settings = [f"name={name}", f"seed={seed}", f"hydra.sweeper.seed={seed}"]
    run("-m", f"sweep={recipe}", *settings, *words)
    best = yaml.safe_load(Path(f"runs/{name}/optimization_results.yaml").read_text())["best"][0]
    results = {
        path.parent.name: json.loads(path.read_text())
        for path in Path(f"runs/{name}").glob("trial=*/result.json")
    }
    seconds = sum(result.get("seconds", 0) for result in results.values())
    return results[f"trial={best['trial']}"] | {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="recipes, and overrides as for script.py")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_intermixed_args()
    recipes = [word for word in options.words if "=" not in word] or list(AT_RANDOM)
    words = [word for word in options.words if "=" in word]
    trials = f"hydra.sweeper.n_trials={options.trials}"
    lines = []
    for recipe in recipes:
        rows: dict[str, list[dict]] = {"default": [], "random": [], "search": []}
        for seed in range(options.repeats):
            rows["default"].append(default(recipe, seed, words))
            at_random = [*words, trials, AT_RANDOM[recipe]]
            rows["random"].append(searched(recipe, "random", seed, at_random))
            rows["search"].append(searched(recipe, "search", seed, [*words, trials]))
        for way, results in rows.items():
            columns = [[result[figure] for result in results] for figure in FIGURES]
            val, test = (spread(column) for column in columns[:2])
            seconds = statistics.mean(columns[2])
            lines.append(f"{recipe:12} {way:8} val {val}   test {test}   {seconds:.0f} s")
    print("\n".join(lines))


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.2f} ± {100 * deviation:.2f} %"


if __name__ == "__main__":
    main()
