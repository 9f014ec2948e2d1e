"""Run folders that were never trained, with only the files that tables and pages read."""

import json
from pathlib import Path
from typing import Any

import yaml

CONFIG = {
    "dataset": {"image_size": 28, "mean": [0.1307]},
    "model": {"_target_": "models.MLP", "image_size": "${dataset.image_size}", "dropout": 0.1},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.002, "betas": [0.9, 0.999]},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "pct_start": 0.22},
    "epochs": 10,
    "limit": None,
    "name": "mine",
}


def fabricate(folder: Path, *overrides: str, seed: int = 0, accuracy=0.9, **config: Any) -> Path:
    """Write a finished run folder; `config` replaces groups of the config."""
    folder.mkdir(parents=True)
    chosen = {"model": "mlp", "dataset": "mnist", "optimizer": "adam", "seed": seed}
    figures = {"val_accuracy": accuracy, "test_accuracy": accuracy, "seconds": 1.0}
    figures["epochs"] = 10
    recorded = {"status": "finished", "overrides": [*overrides, f"seed={seed}"]}
    (folder / "result.json").write_text(json.dumps(chosen | figures | recorded))
    content = yaml.dump(CONFIG | {"seed": seed} | config, Dumper=yaml.CSafeDumper)
    (folder / "config.yaml").write_text(content)
    return folder


def note(folder: Path, **figures: Any) -> Path:
    """Change what `result.json` says; None removes a key."""
    path = folder / "result.json"
    content = json.loads(path.read_text()) | figures
    path.write_text(json.dumps({k: value for k, value in content.items() if value is not None}))
    return folder


def write_metrics(folder: Path, accuracies: list[float], seconds: float = 2.0) -> Path:
    """Write metrics.csv, with a row per accuracy."""
    head = "epoch,train_loss,val_loss,val_accuracy,lr,seconds,images_per_second"
    rows = [f"{n},{1 - y},{1 - y / 2},{y},1e-3,{seconds},99" for n, y in enumerate(accuracies, 1)]
    (folder / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder
