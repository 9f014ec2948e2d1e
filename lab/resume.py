"""What may differ between the parts of a run, what is refused, and what is reported."""

import csv
import json
import os
import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab import files, metrics, provenance, ranks, reading, record, schema, tracker_settings
from lab.escape import one_line

# With other values of these, images of one part of the split would move to another.
FIXED = ("seed", "val_size", "fold", "folds", "limit", "dataset", "on_bad_image")
# What makes a resumed run differ in its last bits from one that was never interrupted.
COMPARED = ("commit", "device_name", "processes", "precision", "threads")


def data_dir(recorded: Any) -> str | None:
    """The `data_dir` of a run that is resumed without one: that of a new run. The folder that the
    run has `recorded` is not for a stranger to choose: files would be written to it.

    Raises RunFolderError, naming the override that is missing, if the run has read a folder that
    exists and that nobody has chosen now.
    """
    default = str(provenance.PROJECT / "data")
    chosen = os.environ.get("DATA_DIR")
    before, now = (files.located(str(name or default)) for name in (recorded, chosen))
    if before == now:
        return chosen
    was, says = one_line(before), f"DATA_DIR={chosen}" if chosen else now
    if not before.is_dir():
        print(f"{was}, where this run found its images, does not exist: reading {says}.")
    elif chosen:
        print(f"This run found its images in {was}: now reading {says}.")
    else:
        raise record.RunFolderError(
            f"This run found its images in {was}, and a run folder does not choose what is read: "
            f"add {shlex.quote(f'data_dir={was}')}, or set DATA_DIR."
        )
    return chosen


def command(folder: Path, cfg: DictConfig) -> str:
    """The command that resumes the run of `cfg` in `folder`."""
    words = [*ranks.interpreter(), "script.py", f"resume={folder}"]
    default = provenance.PROJECT / "data"
    read, found = (name or default for name in (cfg.data_dir, os.environ.get("DATA_DIR")))
    if files.located(read) != files.located(found):
        words.append(f"data_dir={files.located(read)}")
    words += tracker_settings.changed(OmegaConf.to_container(cfg.logger, resolve=True))
    return shlex.join(words)


def check_config(folder: Path, cfg: DictConfig, by_resume: bool) -> None:
    """Raises RunFolderError if `folder` holds a run of another config than `cfg`.

    `resume=FOLDER` may change single values, except those that decide which images are trained on.
    """
    recorded = schema.flat(OmegaConf.to_container(schema.typed(record.read_config(folder))))
    now = schema.flat(record.portable(cfg))
    missing = {key: json.dumps(schema.ADDED.get(key)) for key in [*recorded, *now]}
    recorded, now = missing | recorded, missing | now
    different = [
        key
        for key in recorded
        if recorded[key] != now[key]
        and key.partition(".")[0] not in (*schema.NOT_THE_EXPERIMENT, "total_steps")
    ]
    if by_resume:
        for key in different:
            if key.partition(".")[0] in FIXED:
                raise record.RunFolderError(
                    f"{key}={now[key]} cannot replace {recorded[key]} in {folder}: the run "
                    "would be trained, validated and tested on other images than before. Leave "
                    f"{key} out, or start a new run."
                )
    elif different:
        others = f" and {len(different) - 3} more" if len(different) > 3 else ""
        listed = ", ".join(f"{key}={recorded[key]}" for key in different[:3])
        wanted = ", ".join(f"{key}={now[key]}" for key in different[:3])
        raise record.RunFolderError(
            f"{folder} holds another run, with {listed}{others}, not {wanted}: choose another "
            f"folder. To change single values of that run: resume={folder}"
        )


def check_has_checkpoint(folder: Path) -> None:
    """Raises RunFolderError if epochs were recorded whose checkpoint has disappeared.

    The last of them does not count: a run may be killed between its row and its checkpoint.
    """
    path = folder / "metrics.csv"
    if (folder / "last.pt").exists() or not path.exists():
        return
    try:
        rows = csv.DictReader(reading.read_text(path, metrics.MOST).splitlines())
        seconds = [float(row.get("seconds") or 0) for row in rows]
    except (ValueError, csv.Error) as error:
        if isinstance(error, record.RunFolderError):
            raise
        raise record.RunFolderError(
            f"{path} is damaged ({one_line(error)}), and there is no last.pt to resume from: "
            "restore the files, or delete the folder to start again."
        ) from error
    recorded = schema.typed(record.read_config(folder)).checkpoint
    done = len(seconds) - 1 if recorded.unit == "epochs" else sum(seconds[:-1])
    if done >= recorded.every:
        raise record.RunFolderError(
            f"{folder} has {len(seconds)} epochs in metrics.csv but no last.pt to resume from: "
            "restore the file, or delete the folder to start again."
        )


def check_data(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises RunFolderError if the images are not those that the run was trained on."""
    if before.get("data_sha256", now["data_sha256"]) != now["data_sha256"]:
        raise record.RunFolderError(
            f"the images are not those that {folder} was trained on (their SHA-256 is "
            f"{now['data_sha256'][:12]}… instead of {before['data_sha256'][:12]}…): restore the "
            "data files, or start a new run."
        )


def differences(before: dict[str, Any], now: dict[str, Any], changes: bool) -> str:
    """What differs from the earlier part of a run, in one line; empty if nothing does.

    `changes` tells whether the uncommitted changes of the code differ.
    """
    keys = [key for key in COMPARED if key in before and before[key] != now[key]]
    parts = [f"{key} {before[key]} → {now[key]}" for key in keys]
    versions = before.get("versions", {}), now["versions"]
    parts += [
        f"{name} {versions[0][name]} → {version}"
        for name, version in versions[1].items()
        if versions[0].get(name, version) != version
    ]
    parts += ["uncommitted changes of the code"] if changes else []
    return ", ".join(parts)
