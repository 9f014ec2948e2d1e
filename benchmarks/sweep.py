"""Seconds that a sweep takes: one job after another, and two at a time.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --runs 5 limit=10000 epochs=2

The sweep of the practical (`sweep=practical`) at a small size, whole commands in alternation,
medians. By default a step has one image, which gains least from a second thread, and there are so
many steps that neither the start of a job counts nor the evaluation, whose large batches use all
cores in either case.
"""

import statistics
import tempfile
from pathlib import Path

from harness import parser, python, report, run, seconds

from lab.errors import errors_as_sentences

SMALL = ["batch_size=1", "limit=800", "val_size=100", "epochs=12"]


def sweep(*arguments: str) -> float:
    command = python("script.py", "-m", "sweep=practical", *arguments)
    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: run(command, Path(folder)))


def main() -> None:
    options = parser(__doc__, json="sweep.json")
    options.add_argument("overrides", nargs="*", default=SMALL, help="what makes the jobs small")
    options.add_argument("--runs", type=int, default=3, help="of each kind, in alternation")
    args = options.parse_args()
    serial, local = [], []
    for _ in range(args.runs):
        serial.append(sweep(*args.overrides))
        local.append(sweep(*args.overrides, "hydra/launcher=local"))
    figures = {
        "serial_seconds": statistics.median(serial),
        "local_seconds": statistics.median(local),
        "ratio": statistics.median(serial) / statistics.median(local),
    }
    report(figures, args.json)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
