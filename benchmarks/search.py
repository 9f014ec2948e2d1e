"""A search recipe compared with the default config and with random search on the same budget.

    python benchmarks/search.py                      both recipes, 30 trials, 3 repeats
    python benchmarks/search.py optuna_mlp --trials 2 --repeats 1 limit=200 epochs=1

The best trial is chosen on validation; mean ± std over the repeats, each with another seed of the
search and of the runs. All figures are read from run folders, in runs/benchmark_search in the
current folder: the same command resumes an interrupted one.
"""

import json
import statistics
from functools import partial
from pathlib import Path

import yaml
from harness import PROJECT, parser, python, run, spread
from hydra import compose, initialize_config_dir

from lab.errors import errors_as_sentences
from sweeps.recipe import expanded
from sweeps.runs import FIGURES

AT_RANDOM = {
    "optuna_mlp": "hydra/sweeper/sampler=random",
    "ax_mlp": "hydra.sweeper.method=random_search",
}


def train_default(recipe: str, seed: int, overrides: list[str]) -> dict[str, float]:
    """The figures of the recipe's own config, with nothing searched."""
    folder = Path(f"runs/benchmark_search/{recipe}_default_{seed}")
    if (folder / "config.yaml").exists():
        arguments = [f"resume={folder}"]
    else:
        with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
            composed = partial(compose, "config", return_hydra_config=True)
            settings = expanded([f"sweep={recipe}", f"seed={seed}", *overrides], composed)
        arguments = [*settings, f"hydra.run.dir={folder}"]
    run(python("script.py", *arguments), visible=True)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def search(recipe: str, method: str, seed: int, overrides: list[str]) -> dict[str, float]:
    """The figures of the best trial, but the `seconds` of all trials together."""
    name = f"benchmark_search/{recipe}_{method}_{seed}"
    settings = [f"name={name}", f"seed={seed}", f"hydra.sweeper.seed={seed}"]
    run(python("script.py", "-m", f"sweep={recipe}", *settings, *overrides), visible=True)
    folder = Path("runs", name)
    report = (folder / "optimization_results.yaml").read_text(encoding="utf-8")
    best = yaml.safe_load(report)["best"][0]["trial"]
    trials = folder.glob("trial=*/result.json")
    results = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in trials}
    seconds = sum(result.get("seconds", 0) for result in results.values())
    return results[f"trial={best}"] | {"seconds": seconds}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("words", nargs="*", help="recipes, and overrides as for script.py")
    options.add_argument("--trials", type=int, default=30)
    options.add_argument("--repeats", type=int, default=3)
    args = options.parse_intermixed_args()
    recipes = [word for word in args.words if "=" not in word] or list(AT_RANDOM)
    overrides = [word for word in args.words if "=" in word]
    searched = [*overrides, f"hydra.sweeper.n_trials={args.trials}"]
    lines = []
    for recipe in recipes:
        rows: dict[str, list[dict]] = {"default": [], "random": [], "search": []}
        for seed in range(args.repeats):
            rows["default"].append(train_default(recipe, seed, overrides))
            at_random = [*searched, AT_RANDOM[recipe]]
            rows["random"].append(search(recipe, "random", seed, at_random))
            rows["search"].append(search(recipe, "search", seed, searched))
        for method, results in rows.items():
            val, test, times = ([result[name] for result in results] for name in FIGURES)
            lines.append(
                f"{recipe:12} {method:8} val {spread(val)}   test {spread(test)}   "
                f"{statistics.mean(times):.0f} s"
            )
    print("\n".join(lines))


if __name__ == "__main__":
    with errors_as_sentences():
        main()
