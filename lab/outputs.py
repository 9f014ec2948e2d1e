"""Where evaluate.py may write: anywhere but into the record of a run."""

import importlib.util
import os
from pathlib import Path

from omegaconf import DictConfig

from lab import files, record
from lab.errors import ConfigError
from lab.extras import how_to_install

# The one folder within a run folder that evaluation may write, where somebody asks for it. Pages
# of sweeps look for the report of a run there.
REPORT = "report"
INSTEAD = {  # what an output is of, and the keys that would be of something else
    "export": ("images", "report", "predictions"),
    "report": ("images",),
}


def check_outputs(asked: DictConfig) -> dict[str, Path]:
    """The paths of the outputs that were asked for, by their keys.

    Raises ConfigError for outputs that exclude each other, for names of the wrong kind, and for
    places within a run folder, whichever it is, other than its `report`.
    """
    outputs = {
        key: files.located(str(asked[key]))
        for key in ("export", "report", "predictions")
        if asked[key]
    }
    for key in outputs:
        for other in INSTEAD.get(key, ()):
            if asked[other]:
                raise ConfigError(f"{key}= and {other}= exclude each other: leave one out.")
    if path := outputs.get("export"):
        check_export(path)
        _check_place("export", path, path.parent)
    if path := outputs.get("predictions"):
        if path.suffix.lower() != ".csv" or path.is_dir():
            raise ConfigError(
                f"predictions={path} is not allowed: it must be the name of a .csv file."
            )
        _check_place("predictions", path, path.parent)
    if path := outputs.get("report"):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"report={path} is a file: give the name of a folder, new or not.")
        _check_place("report", path, path)
    return outputs


def _check_place(key: str, path: Path, folder: Path) -> None:
    real = Path(os.path.realpath(folder))
    for run in (real, *real.parents):
        if record.is_run_folder(run) and real != run / REPORT:
            allowed = run / REPORT if key == "report" else run / REPORT / path.name
            raise ConfigError(
                f"{key}={path} is within a run folder, which evaluation leaves as it is: choose "
                f"{allowed}, or a place outside."
            )


def check_export(path: Path) -> None:
    """Raises ConfigError for a name that says no format, or one whose packages are missing."""
    if path.suffix not in (".pt2", ".onnx"):
        raise ConfigError(
            f"export={path} names no format: the name must end in .pt2, which torch.export.load "
            "reads, or in .onnx."
        )
    for package in ("onnx", "onnxscript", "onnxruntime") if path.suffix == ".onnx" else ():
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"export={path} needs packages that are not installed: {how_to_install(package)}"
            )
