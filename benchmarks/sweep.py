"""Seconds that a sweep takes: one job after another, and two at a time.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --runs 5 limit=10000 epochs=2

The sweep of the practical (`sweep=practical`) at a small size, whole commands in alternation,
medians; and the time that `results.py` takes for many finished run folders. By default a step has
one image, which gains least from a second thread, and there are so many steps that neither the
start of a job counts nor the evaluation, whose large batches use all cores in either case.
"""

import json
import re
import shutil
import statistics
import tempfile
from pathlib import Path

from harness import parser, python, report, run, seconds

from lab.errors import errors_as_sentences
from lab.files import write_json, write_text

SMALL = ["batch_size=1", "limit=800", "val_size=100", "epochs=12"]


def sweep(*arguments: str) -> float:
    command = python("script.py", "-m", "sweep=practical", *arguments)
    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: run(command, Path(folder)))


def summary_of(count: int) -> float:
    """`python results.py` for `count` copies of a run: twenty settings, each with other seeds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(python("script.py", "debug=smoke", "dataset=digits"), folder)
        original = next(folder.glob("runs/**/result.json")).parent
        result = json.loads((original / "result.json").read_text(encoding="utf-8"))
        config = (original / "config.yaml").read_text(encoding="utf-8")
        for number in range(count):
            copy = shutil.copytree(original, folder / f"many/{number}")
            dropout = number % 20 / 20
            own = {"seed": number, "overrides": [f"model.dropout={dropout}"]}
            write_json(copy / "result.json", result | own)
            own_config = re.sub("dropout: .*", f"dropout: {dropout}", config)
            write_text(copy / "config.yaml", own_config)
        return seconds(lambda: run(python("results.py", "many"), folder))


def main() -> None:
    options = parser(__doc__, json="sweep.json")
    options.add_argument("overrides", nargs="*", default=SMALL, help="what makes the jobs small")
    options.add_argument("--runs", type=int, default=3, help="of each kind, in alternation")
    options.add_argument("--folders", type=int, default=1000, help="for results.py")
    args = options.parse_args()
    serial, local = [], []
    for _ in range(args.runs):
        serial.append(sweep(*args.overrides))
        local.append(sweep(*args.overrides, "hydra/launcher=local"))
    figures = {
        "serial_seconds": statistics.median(serial),
        "local_seconds": statistics.median(local),
        "ratio": statistics.median(serial) / statistics.median(local),
        f"summary_of_{args.folders}_seconds": summary_of(args.folders),
    }
    report(figures, args.json)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
