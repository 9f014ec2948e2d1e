"""Seconds that a sweep takes: job after job in one process, and two at a time in their own.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --runs 5 limit=10000 epochs=2

The practical's sweep (`sweep=practical`) at a tiny size, whole commands in alternation, medians;
and how long `results.py` takes for a thousand finished run folders. The steps are of one image,
which gain least from a second thread, and so many that the start hardly counts, nor the evaluation,
whose large batches use every core in either way.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TINY = ["batch_size=1", "limit=800", "val_size=100", "epochs=12"]


def seconds(folder: Path, *command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def sweep(*arguments: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = str(PROJECT / "script.py")
        return seconds(Path(folder), script, "-m", "sweep=practical", *arguments)


def summary_of(count: int) -> float:
    """`python results.py` over `count` copies of a run, of twenty settings and any seed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds(folder, str(PROJECT / "script.py"), "debug=smoke", "dataset=digits")
        original = next(folder.glob("runs/**/result.json")).parent
        result = json.loads((original / "result.json").read_text())
        config = (original / "config.yaml").read_text()
        for number in range(count):
            run = shutil.copytree(original, folder / f"many/{number}")
            dropout = number % 20 / 20
            own = {"seed": number, "overrides": [f"model.dropout={dropout}"]}
            (run / "result.json").write_text(json.dumps(result | own))
            own_config = re.sub("dropout: .*", f"dropout: {dropout}", config)
            (run / "config.yaml").write_text(own_config)
        return seconds(folder, str(PROJECT / "results.py"), "many")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", default=TINY, help="what makes the jobs tiny")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--json", type=Path, default=Path("sweep.json"))
    options = parser.parse_args()
    serial, local = [], []
    for _ in range(options.runs):
        serial.append(sweep(*options.overrides))
        local.append(sweep(*options.overrides, "hydra/launcher=local"))
    figures = {
        "serial_seconds": statistics.median(serial),
        "local_seconds": statistics.median(local),
        "ratio": statistics.median(serial) / statistics.median(local),
        f"summary_of_{options.folders}_seconds": summary_of(options.folders),
    }
    for name, value in figures.items():
        print(f"{name:<24} {value:8.2f}")
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
