"""What the benchmarks share: their options, commands in processes of their own, figures.

Importing this module puts the project on the import path: it comes before all imports from there.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.errors import Refusal
from lab.files import write_json
from lab.provenance import PROJECT

# Commands get the environment as it is now: errors_as_sentences changes it. They may run in another
# folder, so a relative DATA_DIR is made absolute.
ENVIRONMENT = dict(os.environ)
if data_dir := ENVIRONMENT.get("DATA_DIR"):
    ENVIRONMENT["DATA_DIR"] = str(Path(data_dir).expanduser().absolute())


def parser(doc: str, json: str | None = None) -> argparse.ArgumentParser:
    """A parser with the docstring `doc` as its help and, with a default for it, `--json`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if json:
        parser.add_argument("--json", type=Path, default=Path(json), help=f"default: {json}")
    return parser


def python(script: str, *arguments: str) -> list[str]:
    """The command that runs a script of the project."""
    return [sys.executable, str(PROJECT / script), *arguments]


def run(
    command: list[str],
    folder: Path | None = None,
    expected: int = 0,
    visible: bool = False,
) -> str:
    """Run a command in `folder`, by default the current one. Returns what it prints; with
    `visible`, that appears in the terminal instead.

    Raises Refusal for another exit code than `expected`, with the last lines of the output.
    """
    output = None if visible else subprocess.PIPE
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=output, text=True
    )
    if done.returncode != expected:
        last = f"{done.stdout or ''}{done.stderr or ''}".splitlines()[-5:]
        raise Refusal("\n  ".join([f"exit code {done.returncode}: {' '.join(command)}", *last]))
    return done.stdout or ""


def seconds(call: Callable[[], object]) -> float:
    """The time that `call` takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def spread(shares: list[float]) -> str:
    """Mean ± standard deviation of shares from 0 to 1, in percent."""
    deviation = statistics.stdev(shares) if len(shares) > 1 else 0.0
    return f"{100 * statistics.mean(shares):.2f} ± {100 * deviation:.2f} %"


def report(figures: dict[str, float], path: Path) -> None:
    """Print the figures, one per line, and write them to a JSON file."""
    for name, value in figures.items():
        print(f"{name:<24} {value:8.2f}")
    write_json(path, figures)
