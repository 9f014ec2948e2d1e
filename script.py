"""Train an image classifier that Hydra composes from config/: the whole experiment, top to bottom.

python script.py model=cnn dataset=fashion     one run; its folder under runs/ is the record of it
python script.py resume=runs/…/…               goes on with a run that was stopped or killed
python script.py --help                        all that can be chosen
"""

import copy
import logging
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import command
import provenance
import record
import search
from config import schema
from config.errors import RunFailed, errors_as_sentences, explain, leaving_on_signals

# torch, and what imports it, waits until the task: --help and a mistyped key are answered at once.

log = logging.getLogger(__name__)

# Where the figures come from: told of each part of a run that was resumed.
PART = (
    *("started", "command", "versions", "commit", "dirty"),
    *("device", "device_name", "threads", "precision", "data_sha256"),
)


@hydra.main(version_base="1.3", config_path="config", config_name="config")
def main(cfg: DictConfig) -> float:
    """One run, recorded however it ends. Returns the validation accuracy, for sweepers."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with leaving_on_signals(), record.locked(folder):
        before = record.read_run(folder)[1] if (folder / "config.yaml").exists() else {}
        if before.get("status") == "finished" and before["epochs"] >= cfg.epochs:
            print(f"{folder} is finished after {before['epochs']} epochs: epochs=N continues it.")
            return before["val_accuracy"]
        if before.get("status") == "pruned" and cfg.trial is not None:
            print(f"{folder} was pruned after {before['epochs']} epochs: trial=null continues it.")
            return before["val_accuracy"]
        result = describe(cfg, before)
        with recorded(result, folder):
            schema.check(cfg)
            if result["status"] == "new":
                begin(cfg, result, folder)
            # A copy, since "auto" is settled in it: config.yaml says what was asked for.
            experiment = prepare(copy.deepcopy(cfg), result, folder)
            begin(cfg, result, folder)  # a resumed run is left alone until nothing can be refused
            result |= run(*experiment, folder)
    return result["val_accuracy"]


def describe(cfg: DictConfig, before: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, of which code: the part of `result.json` that is known before the run.

    Where an earlier part of the run comes from is kept in a list of its own.
    """
    job = HydraConfig.get()
    groups = ("model", "dataset", "optimizer")
    chosen = {group: job.runtime.choices[group] for group in groups if group in job.runtime.choices}
    asked = {
        "status": "resumed" if before else "new",
        "seed": cfg.seed,
        "overrides": list(dict.fromkeys([*before.get("overrides", []), *job.overrides.task])),
        "started": datetime.now().astimezone().isoformat(timespec="milliseconds"),
    }
    if before:
        part = {key: before[key] for key in PART if key in before}
        asked["earlier"] = [*before.get("earlier", []), part]
    kept = {key: value for key, value in before.items() if key not in ("reason", *PART)}
    return kept | chosen | asked | provenance.collect()


def begin(cfg: DictConfig, result: dict[str, Any], folder: Path) -> None:
    """Put on record that a run is under way. A folder with a config has a result, too."""
    record.write_changes(folder, part=len(result.get("earlier", [])))
    record.write_json(folder / "result.json", result | {"status": "running"})
    result["status"] = "running"
    record.write_config(folder / "config.yaml", cfg)


@contextmanager
def recorded(result: dict[str, Any], folder: Path) -> Iterator[None]:
    """Write down how a run ends. Raises RunFailed for an exception, whose reason is then told."""
    try:
        yield
    except search.Pruned as pruned:
        result |= pruned.figures | {"reason": str(pruned)}
        end(result, folder, "pruned")
        return
    except Exception as error:
        sentence = explain(error)
        reason = sentence or f"{type(error).__name__}: {error}"
        if result["status"] == "resumed":
            print(sentence or traceback.format_exc(), file=sys.stderr)
        else:
            log.error(reason, exc_info=None if sentence else error)
        result["reason"] = reason
        end(result, folder, "failed")
        raise RunFailed(reason) from error
    except BaseException:  # a signal, here or in fit
        end(result, folder, "interrupted")
        print(f"Go on with python script.py resume={shlex.quote(str(folder))}", flush=True)
        raise
    end(result, folder, "finished")


def end(result: dict[str, Any], folder: Path, status: str) -> None:
    """Nothing is written of a run that was to go on and did not begin to: it stays as it was."""
    if result["status"] != "resumed":
        result["status"] = status
        record.write_json(folder / "result.json", result)
        log.info("%s: %s", status, folder)


def prepare(cfg: DictConfig, result: dict[str, Any], folder: Path) -> tuple:
    """Config → model → optimizer → data → where it was: all that can be refused, nothing written.

    Returns the config with "auto" settled, the state and the images; `result` learns what is known.
    """
    started = time.perf_counter()
    import torch

    import training

    training.prepare(cfg)
    result["device"], result["device_name"] = cfg.device, training.device_name(cfg.device)
    result["precision"], result["threads"] = cfg.precision, torch.get_num_threads()

    # All that can be refused is built before the data is touched.
    model = training.build_model(cfg)
    optimizer = schema.build(cfg, "optimizer", model.parameters())
    result["parameters"] = sum(weights.numel() for weights in model.parameters())

    images, result["data_sha256"] = load_data(cfg)
    train_set, _, _ = images
    progress = training.new_state(cfg, model, optimizer, len(train_set))
    if training.choose_compile(cfg.compile, cfg.total_steps):
        model.compile()

    if (folder / "last.pt").exists():
        progress.load(folder / "last.pt")
    result["startup_seconds"] = round(time.perf_counter() - started, 3)
    return cfg, progress, images, result


def run(cfg: DictConfig, progress, images: tuple, result: dict, folder: Path) -> dict[str, Any]:
    """Fit → test. Returns the figures of `result.json`."""
    import training

    machine = [result[key] for key in ("parameters", "device", "precision", "threads")]
    log.info("%d parameters, %s, %s, %d threads", *machine)
    if progress.epoch or progress.losses:
        progress.save_best(folder / "best.pt")  # the one there may be from after last.pt
        log.info("resumed after epoch %d, step %d", progress.epoch, len(progress.losses))
    if small := training.small_epochs(cfg):
        log.info("epochs 1 to %d train on smaller images: until then validation is low", small)
    train_set, val_set, test_set = images
    fit(progress, train_set, val_set, cfg, folder)

    # The test images are looked at here and nowhere else, with the weights best on validation.
    progress.model.load_state_dict(progress.best_weights)
    test = training.evaluate(progress.model, test_set, cfg)
    best = progress.best
    log.info("test accuracy %.2f %% (epoch %d)", 100 * test["accuracy"], best["epoch"])

    seconds = sum(row["seconds"] for row in progress.history)
    trained = sum(row["images_per_second"] * row["seconds"] for row in progress.history)
    return {
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "best_epoch": best["epoch"],
        "epochs": progress.epoch,
        "seconds": round(seconds, 2),
        "images_per_second": round(trained / max(seconds, 0.001)),
    }


def load_data(cfg: DictConfig) -> tuple[tuple, str]:
    """Training, validation and test images (`data.ImageSet`) on the device, and the files' hash."""
    import data
    import datasets

    train_images, test_set, sha256 = datasets.load(
        hydra.utils.instantiate(cfg.dataset.source, _partial_=True),
        root=Path(cfg.data_dir or provenance.PROJECT / "data").expanduser().absolute(),
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


if __name__ == "__main__":
    with errors_as_sentences():
        sys.argv[1:] = command.of_script(sys.argv[1:])
        main()
