"""Seconds of training until the mean test accuracy over several seeds reaches a target.

    python benchmarks/time_to_accuracy.py experiment=mnist_99 --target 0.99 --seeds 10
    python benchmarks/time_to_accuracy.py model=mlp --target 0.98 --seeds 3
    python benchmarks/time_to_accuracy.py experiment=mnist_99 \\
        --peer 'python benchmarks/mnist_fast.py'

Any config of script.py can be timed. Loading the data, building the model and evaluating it are not
counted. The result is the time of the first epoch after which the mean reaches the target.
`--peer` runs another command once per seed, in alternation; the last line that it prints must be
`SECONDS ACCURACY`.
"""

import shlex
import statistics
import time

from experiment import Experiment, composed
from harness import parser, run, spread

from lab.errors import Refusal, errors_as_sentences
from lab.files import write_json
from training import evaluate


def train(experiment: Experiment) -> list[tuple[float, float]]:
    """(seconds of training so far, test accuracy) after each epoch."""
    state, seconds, curve = experiment.state, 0.0, []
    while state.epoch < experiment.cfg.epochs:
        started = time.perf_counter()
        train = experiment.train_epoch()
        seconds += time.perf_counter() - started
        test = evaluate(
            state.model, experiment.test_set, experiment.machine, experiment.augmentation
        )
        state.end_epoch(train, test)
        curve.append((seconds, test["accuracy"]))
    return curve


def run_peer(command: str) -> tuple[float, float]:
    """Seconds and accuracy. Raises Refusal if the command does not print them."""
    last = run(shlex.split(command)).splitlines()[-1:]
    try:
        seconds, accuracy = map(float, last[0].split())
    except (IndexError, ValueError) as error:
        raise Refusal(
            f"The last line of {command} must be SECONDS ACCURACY, not {last}."
        ) from error
    return seconds, accuracy


def main() -> None:
    options = parser(__doc__, json="time_to_accuracy.json")
    options.add_argument("overrides", nargs="*", help="as for script.py")
    options.add_argument("--target", type=float, default=0.99, help="mean test accuracy, 0 … 1")
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--peer", help="a command whose last line is SECONDS ACCURACY")
    args = options.parse_args()

    def prepare(seed: int) -> Experiment:
        return Experiment.prepare(composed([*args.overrides, f"seed={seed}"]))

    first = prepare(seed=0)
    facts = first.machine.facts()
    print(f"{facts['device_name']}, {facts['threads']} threads, {facts['precision']}")
    train(first)  # not counted: it warms up
    curves, peer = [], []
    for seed in range(args.seeds):
        curves.append(train(prepare(seed)))
        if args.peer:
            peer.append(run_peer(args.peer))
    reached = None
    for number, points in enumerate(zip(*curves, strict=True), 1):
        times, accuracies = zip(*points, strict=True)
        median = statistics.median(times)
        print(f"epoch {number:>3}: {median:8.2f} s   test {spread(accuracies)}")
        if reached is None and statistics.mean(accuracies) >= args.target:
            reached = median
    if reached is None:
        print(f"The mean did not reach {args.target:.2%}.")
    else:
        print(f"{args.target:.2%} after {reached:.2f} s of training (median)")
    if peer:
        times, accuracies = zip(*peer, strict=True)
        median = statistics.median(times)
        print(f"peer: {median:.2f} s, test {spread(accuracies)}")
        if reached:
            print(f"ratio: {median / reached:.2f}")
    write_json(args.json, {"project": curves, "peer": peer})


if __name__ == "__main__":
    with errors_as_sentences():
        main()
