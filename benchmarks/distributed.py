"""Images per second of training in several processes, compared with a single one of them.

    python benchmarks/distributed.py                    vit and cnn, two processes of one thread
    python benchmarks/distributed.py precision=fp32 --models vit --processes 4 --threads 2
    python benchmarks/distributed.py --models vit --processes 8   # on eight GPUs

Whole commands in alternation; the figures are medians, over the runs, of the last of two epochs.
`apart` is the sum over as many separate runs, side by side, that do not communicate: no division of
labour can be faster on this machine. The load is that before the first run.
"""

import csv
import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import ENVIRONMENT, PROJECT, parser, run

from lab.errors import errors_as_sentences
from lab.files import write_json


def rate(folder: Path, count: int, arguments: list[str]) -> float:
    """Images per second in `count` processes."""
    script = [str(PROJECT / "script.py"), *arguments, f"hydra.run.dir={folder}"]
    command = [sys.executable, *script]
    if count > 1:
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}"]
        command = [sys.executable, *launcher, *script]
    run(command)
    return last_rate(folder)


def last_rate(folder: Path) -> float:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return float([*csv.DictReader(file)][-1]["images_per_second"])


def apart(folder: Path, count: int, arguments: list[str]) -> float:
    """Images per second of `count` runs side by side."""
    folders = [folder / str(number) for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(lambda place: rate(place, 1, arguments), folders))


def main() -> None:
    options = parser(__doc__, json="distributed.json")
    options.add_argument("overrides", nargs="*", help="as for script.py, before any option")
    options.add_argument("--models", nargs="+", default=["vit", "cnn"])
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--threads", type=int, default=1, help="of each process")
    options.add_argument("--runs", type=int, default=3, help="of each number of processes")
    options.add_argument("--images", type=int, default=6000, help="of each epoch")
    args = options.parse_args()
    ENVIRONMENT["OMP_NUM_THREADS"] = str(args.threads)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, {args.threads} threads in each process")
    print(
        f"model    1 process  {args.processes} processes   ratio   {args.processes} apart   ratio"
    )
    same = ("epochs=2", f"limit={args.images}", "compile=false", "shrink.share=0", "skip_easy=0")
    record = {"load": load, "processes": args.processes, "threads": args.threads, "models": {}}
    for model in args.models:
        rates: dict[str, list[float]] = {"one": [], "several": [], "apart": []}
        with tempfile.TemporaryDirectory() as folder:
            for number in range(args.runs):
                words = [f"model={model}", *same, *args.overrides]
                place = Path(folder, str(number))
                rates["one"].append(rate(place / "one", 1, words))
                rates["several"].append(rate(place / "several", args.processes, words))
                rates["apart"].append(apart(place / "apart", args.processes, words))
        one, several, most = map(statistics.median, rates.values())
        ratios = several / one, most / one
        print(
            f"{model:<8} {one:>9.0f} {several:>12.0f} {ratios[0]:>7.2f} {most:>9.0f} "
            f"{ratios[1]:>7.2f}",
            flush=True,
        )
        record["models"][model] = {"ratios": [round(r, 2) for r in ratios], "runs": rates}
        write_json(args.json, record)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
