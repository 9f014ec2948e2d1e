"""Seconds that a user waits: for --help, a refusal, the first step, the second job of a sweep.

    python benchmarks/startup.py

Whole commands in processes of their own, medians over the runs; and the peak memory of the default
run.
"""

import json
import resource
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from harness import parser, python, report, run, seconds

from lab.errors import errors_as_sentences


def median_seconds(runs: int, *arguments: str, expected: int = 0) -> float:
    """The time that `python script.py ARGUMENTS` takes."""
    command = python("script.py", *arguments)
    return statistics.median(seconds(lambda: run(command, expected=expected)) for _ in range(runs))


def first_step(folder: Path, runs: int) -> tuple[float, float]:
    """Seconds from the command to the first step, and those of the second job before its own."""
    first, second = [], []
    for number in range(runs):
        sweep = folder / str(number)
        sweep.mkdir()
        started = time.time()
        run(python("script.py", "--multirun", "seed=0,1", "epochs=1", "limit=1000"), sweep)
        jobs = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sweep.glob("runs/**/result.json")
        ]
        jobs.sort(key=lambda job: job["started"])
        job_started = datetime.fromisoformat(jobs[0]["started"]).timestamp()
        first.append(job_started - started + jobs[0]["startup_seconds"])
        second.append(jobs[1]["startup_seconds"])
    return statistics.median(first), statistics.median(second)


def main() -> None:
    options = parser(__doc__, json="startup.json")
    options.add_argument("--runs", type=int, default=5)
    args = options.parse_args()
    figures = {
        "help_seconds": median_seconds(args.runs, "--help"),
        "refusal_seconds": median_seconds(args.runs, "epocs=3", expected=1),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(python("script.py"), folder)
        # Before the sweep, which needs more: this is the largest of all commands so far.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB on Linux
        first, second = first_step(folder, args.runs)
        figures |= {"first_step_seconds": first, "second_job_seconds": second}
        figures["peak_memory_mib"] = peak / 1024
    report(figures, args.json)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
