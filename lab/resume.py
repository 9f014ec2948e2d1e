"""What may differ between the parts of a run, what is refused, and what is reported."""

import csv
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lab import record, schema

# With other values of these, images of one part of the split would move to another.
FIXED = ("seed", "val_size", "fold", "folds", "limit", "dataset", "on_bad_image")
# What makes a resumed run differ in its last bits from one that was never interrupted.
COMPARED = ("commit", "device_name", "precision", "threads")


def check_config(folder: Path, cfg: DictConfig, by_resume: bool) -> None:
    """Raises RunFolderError if `folder` holds a run of another config than `cfg`.

    `resume=FOLDER` may change single values, except those that decide which images are trained on.
    """
    recorded = schema.flat(OmegaConf.to_container(schema.typed(record.read_config(folder))))
    now = schema.flat(record.portable(cfg))
    different = [
        key
        for key in dict.fromkeys([*recorded, *now])
        if recorded.get(key) != now.get(key)
        and key.partition(".")[0] not in (*schema.NOT_THE_EXPERIMENT, "total_steps")
    ]
    if by_resume:
        for key in different:
            if key.partition(".")[0] in FIXED:
                raise record.RunFolderError(
                    f"{key}={now.get(key)} cannot replace {recorded.get(key)} in {folder}: images "
                    "that the run was trained on would be used to validate or test it. Leave "
                    f"{key} out, or start a new run."
                )
    elif different:
        others = f" and {len(different) - 3} more" if len(different) > 3 else ""
        listed = ", ".join(f"{key}={recorded.get(key)}" for key in different[:3])
        wanted = ", ".join(f"{key}={now.get(key)}" for key in different[:3])
        raise record.RunFolderError(
            f"{folder} holds another run, with {listed}{others}, not {wanted}: choose another "
            f"folder. To change single values of that run: resume={folder}"
        )


def check_has_checkpoint(folder: Path) -> None:
    """Raises RunFolderError if epochs were recorded whose checkpoint has disappeared."""
    if (folder / "last.pt").exists() or not (folder / "metrics.csv").exists():
        return
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        seconds = [float(row.get("seconds") or 0) for row in csv.DictReader(file)]
    recorded = record.read_config(folder)["checkpoint"]
    done = len(seconds) if recorded["unit"] == "epochs" else sum(seconds)
    if done >= recorded["every"]:
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
    keys = [key for key in COMPARED if key in before and before[key] != now.get(key)]
    parts = [f"{key} {before[key]} → {now.get(key)}" for key in keys]
    versions = before.get("versions", {}), now["versions"]
    parts += [
        f"{name} {versions[0][name]} → {version}"
        for name, version in versions[1].items()
        if versions[0].get(name, version) != version
    ]
    parts += ["uncommitted changes of the code"] if changes else []
    return ", ".join(parts)
