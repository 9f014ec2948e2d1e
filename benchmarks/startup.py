"""Seconds that a person waits: for --help, a refusal, the first step, the second job of a sweep.

    python benchmarks/startup.py

Whole commands in subprocesses, medians of several runs; and the peak memory of the default run.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """(when it was started, seconds it took) of `python script.py ARGUMENTS`, however it ended."""
    started, clock = time.time(), time.perf_counter()
    command = [sys.executable, str(PROJECT / "script.py"), *arguments]
    subprocess.run(command, cwd=folder, capture_output=True)
    return started, time.perf_counter() - clock


def median_seconds(folder: Path, runs: int, *arguments: str) -> float:
    return statistics.median(run(folder, *arguments)[1] for _ in range(runs))


def first_step(folder: Path, runs: int) -> tuple[float, float]:
    """Medians of: from the command to the first step, and the second job's time before its own."""
    first, second = [], []
    for number in range(runs):
        sweep = folder / str(number)
        sweep.mkdir()
        command_at, _ = run(sweep, "--multirun", "seed=0,1", "epochs=1", "limit=1000")
        paths = sorted(sweep.glob("runs/**/result.json"))
        jobs = [json.loads(path.read_text()) for path in paths]
        task_at = datetime.fromisoformat(jobs[0]["started"]).timestamp()
        first.append(task_at - command_at + jobs[0]["startup_seconds"])
        second.append(jobs[1]["startup_seconds"])
    return statistics.median(first), statistics.median(second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("startup.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures = {
            "help_seconds": median_seconds(folder, options.runs, "--help"),
            "refusal_seconds": median_seconds(folder, options.runs, "epocs=3"),
        }
        figures["first_step_seconds"], figures["second_job_seconds"] = first_step(
            folder, options.runs
        )
        run(folder)  # python script.py, in its own folder
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB on Linux
        figures["peak_memory_mib"] = peak / 1024
    for name, value in figures.items():
        print(f"{name:<20} {value:8.2f}")
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
