"""Seconds and peak memory of `python results.py` over many run folders.

    python benchmarks/results.py
    python benchmarks/results.py --folders 100 --epochs 1000

Each folder is a copy of a run that was trained, with a config, a result and learning curves of its
own: settings of a model and of two datasets, five seeds of each, one run in fifty failed. The
seconds are those of the whole command, with a warm file cache: the median of `--runs`.
"""

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from harness import ENVIRONMENT, parser, python, report, run

from lab.errors import Refusal, errors_as_sentences

SEEDS = 5
BIG = ("best.pt", "last.pt")  # which no table reads: hard links take no space


def copies(folder: Path, count: int, epochs: int) -> None:
    """Write `count` run folders into `folder`/many."""
    run(python("script.py", "debug=smoke", "dataset=digits", f"hydra.run.dir={folder}/one"), folder)
    original = folder / "one"
    result = json.loads((original / "result.json").read_text(encoding="utf-8"))
    config = (original / "config.yaml").read_text(encoding="utf-8")
    head = (original / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    for number in range(count):
        own = folder / f"many/{number:05}"
        shutil.copytree(original, own, ignore=shutil.ignore_patterns(*BIG, "metrics.csv"))
        for name in BIG:
            os.link(original / name, own / name)
        write_run(own, number, epochs, result, config, head)


def write_run(
    own: Path, number: int, epochs: int, result: dict, config: str, head: list[str]
) -> None:
    draw = random.Random(number)
    dropout, dataset = number // SEEDS / 1e5, ("digits", "mnist")[number // SEEDS % 2]
    accuracy = 0.9 + dropout / 2 + 0.01 * draw.random()
    settings = {
        "seed": number % SEEDS,
        "overrides": [f"model.dropout={dropout}", f"dataset={dataset}"],
    }
    settings |= {"dataset": dataset, "epochs": epochs}
    settings |= {"test_accuracy": accuracy, "val_accuracy": accuracy + 0.01 * draw.random()}
    if number % 50 == 49:
        settings |= {"status": "failed", "reason": "loss is nan after epoch 3: lower optimizer.lr."}
    (own / "result.json").write_text(json.dumps(result | settings, indent=2), "utf-8")
    text = re.sub("dropout: .*", f"dropout: {dropout}", config)
    text = re.sub("Digits", dataset.capitalize(), text)
    text = re.sub("^seed: .*", f"seed: {number % SEEDS}", text, flags=re.MULTILINE)
    text = re.sub("^epochs: .*", f"epochs: {epochs}", text, flags=re.MULTILINE)
    (own / "config.yaml").write_text(text, "utf-8")
    curve = [accuracy - draw.random() * 0.3 / epoch for epoch in range(1, epochs + 1)]
    rows = [[epoch, 1 - y, 1 - y, y, 1e-3, 0.5, 1000] for epoch, y in enumerate(curve, start=1)]
    lines = [",".join(map(str, row)) for row in (head, *rows)]
    (own / "metrics.csv").write_text("\n".join(lines) + "\n", "utf-8")


def summarise(folder: Path) -> tuple[float, float]:
    """Seconds and the peak of the memory in MiB, also of the process that draws."""
    started = time.perf_counter()
    command = python("results.py", "many")
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise Refusal(f"exit code {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def main() -> None:
    options = parser(__doc__, json="results.json")
    options.add_argument("--folders", type=int, nargs="+", default=[1000, 10_000])
    options.add_argument("--epochs", type=int, default=10, help="rows of each run's metrics.csv")
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    figures = {}
    for count in args.folders:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            copies(folder, count, args.epochs)
            measured = [summarise(folder) for _ in range(args.runs + 1)][1:]  # the first warms up
            times, peaks = zip(*measured, strict=True)
            figures[f"seconds_of_{count}"] = statistics.median(times)
            figures[f"peak_MiB_of_{count}"] = max(peaks)
            for path in sorted((folder / "many").glob("results.*")):
                figures[f"{path.name}_kB_of_{count}"] = path.stat().st_size / 1000
    report(figures, args.json)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
