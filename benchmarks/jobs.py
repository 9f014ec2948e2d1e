"""What the jobs of a long sweep cost on top of their training: seconds and memory.

    python benchmarks/jobs.py
    python benchmarks/jobs.py model=mlp dataset=fashion limit=1000 epochs=1

Sweeps over seeds, of 5 and of 100 jobs by default, one job after another in one process: the
difference is that of the jobs, without the start of the command. The CPU time, which includes that
of training, says more where other programs run.
"""

import json
import resource
import tempfile
from pathlib import Path

from harness import parser, python, report, run, seconds

from lab.errors import errors_as_sentences

SHORT = ["model=linear", "dataset=digits", "dataset.repeats=1", "epochs=1"]


def sweep(jobs: int, overrides: list[str]) -> dict[str, float]:
    """Seconds, CPU seconds and MiB of a sweep of `jobs` jobs, and the seconds of its training."""
    command = python("script.py", "-m", *overrides, f"seed=range({jobs})")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        wall = seconds(lambda: run(command, Path(folder)))
        results = Path(folder).glob("runs/**/result.json")
        training = sum(json.loads(path.read_text())["seconds"] for path in results)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    peak = usage.ru_maxrss / 1024  # KiB on Linux; the largest so far
    return {"wall": wall, "cpu": cpu, "training": training, "peak": peak}


def main() -> None:
    options = parser(__doc__, json="jobs.json")
    options.add_argument("overrides", nargs="*", default=SHORT, help="what each job is")
    options.add_argument("--few", type=int, default=5)
    options.add_argument("--many", type=int, default=100)
    args = options.parse_args()
    few, many = sweep(args.few, args.overrides), sweep(args.many, args.overrides)
    each = {key: (many[key] - few[key]) / (args.many - args.few) for key in few}
    figures = {
        "seconds_over_training": each["wall"] - each["training"],
        "training_seconds": each["training"],
        "cpu_seconds": each["cpu"],
        "peak_memory_mib_few": few["peak"],
        "peak_memory_mib_many": many["peak"],
    }
    report(figures, args.json)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
