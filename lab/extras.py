"""Optional packages: which file in env/ lists what a missing one needs."""

import importlib.util
import re
from pathlib import Path

ENV = Path(__file__).resolve().parent.parent / "env"


def how_to_install(module: str | None) -> str | None:
    """`pip install -r env/FILE`, for the file that lists the package of `module` by that name."""
    top = (module or "").partition(".")[0]
    for path in sorted(ENV.glob("requirements-*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if top and re.split(r"[^\w-]", line)[0].replace("-", "_") == top:
                return f"pip install -r env/{path.name}"
    return None


def require(module: str, choice: str) -> None:
    """Raises ValueError, with a sentence, if the package that a `choice` needs is missing. It
    is looked for and not imported, since some packages take seconds."""
    if not importlib.util.find_spec(module):
        raise ValueError(
            f"{choice} needs the package {module}, which is not installed: {how_to_install(module)}"
        )
