"""Train an image classifier that Hydra composes from config/: the whole experiment, top to bottom.

python script.py model=cnn dataset=fashion     one run; its folder under runs/ is the record of it
python script.py resume=runs/…/…               goes on with a run that was stopped or killed
python script.py --help                        all that can be chosen
"""

import logging
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import record
import search
from config import schema
from config.errors import ConfigError, RunFailed, errors_as_sentences, explain

# torch, and what imports it, waits until the task: --help and a mistyped key are answered at once.

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="config", config_name="config")
def main(cfg: DictConfig) -> float:
    """One run, recorded however it ends. Returns the validation accuracy, for sweepers."""
    cfg = schema.typed(cfg)  # the config of a resumed run comes without types
    folder = Path(HydraConfig.get().runtime.output_dir)
    with record.locked(folder):
        result = describe(cfg, folder)
        if result["status"] == "finished" and result["epochs"] >= cfg.epochs:
            print(f"{folder} is finished after {result['epochs']} epochs: epochs=N continues it.")
            return result["val_accuracy"]
        if result["status"] == "pruned" and cfg.trial is not None:
            print(f"{folder} was pruned after {result['epochs']} epochs: trial=null continues it.")
            return result["val_accuracy"]
        result["status"] = "running"
        try:
            record.write_json(folder / "result.json", result)
            schema.check(cfg)
            record.write_config(folder / "config.yaml", cfg)
            record.write_text(folder / "changes.diff", record.uncommitted_changes())
            result |= run(cfg, folder)
            result["status"] = "finished"
        except search.Pruned as pruned:
            result |= {"status": "pruned", "reason": str(pruned), **pruned.figures}
        except SystemExit:
            result["status"] = "interrupted"
            raise
        except BaseException as error:
            sentence = explain(error)
            result["status"] = "failed"
            result["reason"] = sentence or f"{type(error).__name__}: {error}"
            log.error(result["reason"], exc_info=None if sentence else error)
            if isinstance(error, Exception):
                raise RunFailed(result["reason"]) from error
            raise
        finally:
            record.write_json(folder / "result.json", result)
            log.info("%s: %s", result["status"], folder)
    return result["val_accuracy"]


def describe(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """What was asked for, of which code: the part of `result.json` that is known before the run."""
    job = HydraConfig.get()
    before = {"status": "new", "overrides": []}
    if (folder / "config.yaml").exists():  # resumed; without it, the config was refused before
        before = record.read_run(folder)[1]
        before.pop("reason", None)
        if before["status"] == "finished" and before["epochs"] >= cfg.epochs:
            return before
    groups = ("model", "dataset", "optimizer")
    chosen = {group: job.runtime.choices[group] for group in groups if group in job.runtime.choices}
    asked = {
        "seed": cfg.seed,
        "overrides": list(dict.fromkeys([*before["overrides"], *job.overrides.task])),
        "started": datetime.now().astimezone().isoformat(timespec="milliseconds"),
    }
    return before | chosen | asked | record.provenance()


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Config → model → optimizer → data → fit → test. Returns the figures of `result.json`."""
    started = time.perf_counter()
    import torch

    import state
    import training

    training.prepare(cfg)

    # All that can be refused is built before the data is touched.
    model = training.build_model(cfg)
    optimizer = schema.build(cfg, "optimizer", model.parameters())
    parameters = sum(weights.numel() for weights in model.parameters())
    threads = torch.get_num_threads()
    log.info("%d parameters, %s, %s, %d threads", parameters, cfg.device, cfg.precision, threads)

    (train_set, val_set, test_set), data_sha256 = load_data(cfg)
    steps = training.count_steps(cfg, len(train_set))
    cfg.total_steps = sum(steps)
    scheduler = schema.build(cfg, "scheduler", optimizer)
    if training.choose_compile(cfg.compile, cfg.total_steps):
        model.compile()

    image_losses = torch.zeros(len(train_set), device=cfg.device)
    progress = state.State(model, optimizer, scheduler, steps, image_losses)
    if (folder / "last.pt").exists():
        progress.load(folder / "last.pt")
        progress.save_best(folder / "best.pt")  # the one there may be from after last.pt
        log.info("resumed after epoch %d, step %d", progress.epoch, len(progress.losses))
    if small := training.small_epochs(cfg):
        log.info("epochs 1 to %d train on smaller images: until then validation is low", small)
    startup = time.perf_counter() - started
    fit(progress, train_set, val_set, cfg, folder)

    # The test images are looked at here and nowhere else, with the weights best on validation.
    model.load_state_dict(progress.best_weights)
    test = training.evaluate(model, test_set, cfg)
    best = progress.best
    log.info("test accuracy %.2f %% (epoch %d)", 100 * test["accuracy"], best["epoch"])

    seconds = sum(row["seconds"] for row in progress.history)
    images = sum(row["images_per_second"] * row["seconds"] for row in progress.history)
    return {
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "best_epoch": best["epoch"],
        "epochs": progress.epoch,
        "startup_seconds": round(startup, 3),
        "seconds": round(seconds, 2),
        "images_per_second": round(images / seconds),
        "parameters": parameters,
        "device": cfg.device,
        "device_name": training.device_name(cfg.device),
        "threads": threads,
        "precision": cfg.precision,
        "data_sha256": data_sha256,
    }


def load_data(cfg: DictConfig) -> tuple[tuple, str]:
    """Training, validation and test images (`data.ImageSet`) on the device, and the files' hash."""
    import data
    import datasets

    train_images, test_set, sha256 = datasets.load(
        hydra.utils.instantiate(cfg.dataset.source, _partial_=True),
        root=Path(cfg.data_dir or record.PROJECT / "data").expanduser().absolute(),
        facts=cfg.dataset,
    )
    train_set, val_set = data.split(train_images, cfg.val_size, cfg.seed)
    parts = (train_set, val_set, test_set)
    return tuple(images[: cfg.limit].to(cfg.device) for images in parts), sha256


def fit(progress, train_set, val_set, cfg: DictConfig, folder: Path) -> None:
    """Train for the epochs that are left; after each, validate, keep the best, write it down."""
    import state
    import training

    with state.Checkpoints(progress, folder / "last.pt", cfg.checkpoint) as checkpoints:
        while progress.epoch < cfg.epochs:
            train_loss = training.train_epoch(progress, train_set, cfg, checkpoints.after_step)
            seconds = progress.seconds_of_epoch()
            val = training.evaluate(progress.model, val_set, cfg)
            row = {
                "epoch": progress.epoch + 1,
                "train_loss": train_loss,
                "val_loss": val["loss"],
                "val_accuracy": val["accuracy"],
                "lr": progress.scheduler.get_last_lr()[0],
                "seconds": round(seconds, 3),
                "images_per_second": round(sum(map(len, progress.losses)) / seconds),
            }
            progress.end_epoch(row)
            if progress.best is row:
                progress.save_best(folder / "best.pt")
            record.write_csv(folder / "metrics.csv", progress.history)
            log.info(
                f"epoch {progress.epoch}/{cfg.epochs}  train loss {train_loss:.4f}  "
                f"val loss {val['loss']:.4f}  val accuracy {val['accuracy']:.2%}  "
                f"lr {row['lr']:.1e}  {seconds:.1f} s  {row['images_per_second']} images/s"
            )
            checkpoints.after_epoch(is_last=progress.epoch == cfg.epochs)
            search.report(cfg, progress.history)


def resumed(arguments: list[str]) -> list[str]:
    """The command line with `resume=FOLDER` spelt out for Hydra: that run's own config and folder.

    The folder may come from a stranger, so it is checked before Hydra composes anything from it.
    """
    folders = [word.removeprefix("resume=") for word in arguments if word.startswith("resume=")]
    if not folders:
        return arguments
    others = [word for word in arguments if not word.startswith("resume=")]
    if "--multirun" in others or "-m" in others:
        raise ConfigError("resume=FOLDER goes on with one run: leave --multirun out.")
    folder = Path(folders[-1]).expanduser().absolute()
    record.read_run(folder)
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [
        *("--config-path", str(folder), "--config-name", "config"),
        *("--config-dir", str(record.PROJECT / "config"), "hydra/job_logging=practical"),
        *(f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"),
        *others,
    ]


if __name__ == "__main__":
    with errors_as_sentences():
        sys.argv[1:] = resumed(sys.argv[1:])
        main()
