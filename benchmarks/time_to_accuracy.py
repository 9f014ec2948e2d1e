"""Seconds of training until the mean test accuracy over N seeds reaches a target.

    python benchmarks/time_to_accuracy.py experiment=mnist_99 --target 0.99 --seeds 10
    python benchmarks/time_to_accuracy.py model=mlp --target 0.98 --seeds 3
    python benchmarks/time_to_accuracy.py experiment=mnist_99 \\
        --peer 'python benchmarks/mnist_fast.py'

Any config of script.py can be timed. Loading the data, building the model and evaluating are not
training and not counted. The answer is the first epoch after which the mean over the seeds is at
the target. `--peer` runs another command once for every seed, in turn with ours; its last line must
be `SECONDS ACCURACY`.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import script  # noqa: E402
import training  # noqa: E402
from config import schema  # noqa: E402


def composed(overrides: list[str]):
    """The config that `python script.py OVERRIDES` would run, checked, for this machine."""
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    schema.check(cfg)
    training.prepare(cfg)
    return cfg


def train(cfg, seed: int) -> list[tuple[float, float]]:
    """(seconds of training so far, test accuracy) after each epoch."""
    cfg.seed = seed
    training.seed_everything(seed)
    (train_set, _, test_set), _ = script.load_data(cfg)
    model = training.build_model(cfg)
    optimizer = schema.build(cfg, "optimizer", model.parameters())
    state = training.new_state(cfg, model, optimizer, len(train_set))
    seconds, curve = 0.0, []
    for _ in range(cfg.epochs):
        started = time.perf_counter()
        training.train_epoch(state, train_set, cfg)
        seconds += time.perf_counter() - started
        accuracy = training.evaluate(model, test_set, cfg)["accuracy"]
        state.end_epoch({"val_accuracy": accuracy})
        curve.append((seconds, accuracy))
    return curve


def run_peer(command: str) -> tuple[float, float]:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
    seconds, accuracy = done.stdout.split()[-2:]
    return float(seconds), float(accuracy)


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2%} ± {deviation:.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as for script.py")
    parser.add_argument("--target", type=float, default=0.99, help="mean test accuracy, 0 … 1")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--peer", help="a command whose last line is SECONDS ACCURACY")
    parser.add_argument("--json", type=Path, default=Path("time_to_accuracy.json"))
    options = parser.parse_args()

    cfg = composed(options.overrides)
    print(f"{training.device_name(cfg.device)}, {torch.get_num_threads()} threads, {cfg.precision}")
    train(cfg, seed=0)  # not counted: it loads the data and warms up
    curves, peer = [], []
    for seed in range(options.seeds):
        curves.append(train(cfg, seed))
        if options.peer:
            peer.append(run_peer(options.peer))
    epochs = [[(curve[i]) for curve in curves] for i in range(cfg.epochs)]
    reached = None
    for number, points in enumerate(epochs, 1):
        seconds = statistics.median(second for second, _ in points)
        accuracies = [accuracy for _, accuracy in points]
        print(f"epoch {number:>3}: {seconds:8.2f} s   test {spread(accuracies)}")
        if reached is None and statistics.mean(accuracies) >= options.target:
            reached = seconds
    if reached is None:
        print(f"The mean never reached {options.target:.2%}.")
    else:
        print(f"{options.target:.2%} after {reached:.2f} s of training (median)")
    if peer:
        seconds = statistics.median(second for second, _ in peer)
        print(f"peer: {seconds:.2f} s, test {spread([accuracy for _, accuracy in peer])}")
        if reached:
            print(f"ratio: {seconds / reached:.2f}")
    options.json.write_text(json.dumps({"project": curves, "peer": peer}, indent=2) + "\n")


if __name__ == "__main__":
    main()
