"""Train an image classifier that Hydra composes from config/: the whole experiment, top to bottom.

python script.py model=cnn dataset=fashion     train; everything is recorded in a folder under runs/
python script.py resume=runs/…/…               resume a run that was stopped or killed
python script.py --help                        list all options
"""

import logging
import sys

sys.path.insert(0, __file__.removesuffix("script.py"))  # python -P leaves it out

import hydra
from omegaconf import DictConfig

from lab import from_python
from lab.build import build, build_schedule, locate
from lab.errors import errors_as_sentences
from lab.launch import launch, open_run
from lab.run import Run
from sweeps.pruning import report_to_search

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="config", config_name="config")
def main(cfg: DictConfig) -> float:
    """Train once. Returns the validation accuracy, which sweepers compare."""
    with open_run(cfg) as run:
        if not run.is_over:
            experiment(cfg, run)
    return run.result["val_accuracy"]


def train(*overrides: str, folder: str | None = None) -> dict:
    """Train from Python, as in `train("model=cnn", folder="runs/mine")`. Returns the result."""
    return from_python.run(main, overrides, folder)


def experiment(cfg: DictConfig, run: Run) -> None:
    """Build the model, train it, and test it once."""
    import torch  # not at the top: it takes seconds, and --help and refusals do not need it

    import sources
    from data import Augmentation, Curriculum, Shrink, split
    from lab.autosave import Autosave
    from lab.machine import Machine
    from lab.model_check import check_model
    from lab.state import State
    from training import evaluate, train_epoch

    # 1. The model and its optimizer, before the data: a config that cannot work is refused early.
    machine = Machine.prepare(cfg.device, cfg.precision, cfg.deterministic, cfg.seed)
    augmentation, shrink = Augmentation(**cfg.augmentation), Shrink(**cfg.shrink)
    shown = (augmentation, shrink, cfg.skip_easy, cfg.class_weights)
    curriculum = Curriculum(cfg.epochs, cfg.batch_size, cfg.seed, *shown)
    model = build(cfg, "model")
    check_model(model, cfg, curriculum.sizes(cfg.dataset.image_size))
    run.initialise(model)  # with the weights that init_from names, if it does
    machine.place(model)
    optimizer = build(cfg, "optimizer", model.parameters())
    run.note(**machine.facts())

    # 2. The images for training, validation and testing.
    source = locate(cfg, "dataset.source")
    root = sources.data_root(cfg.data_dir)
    train_set, test_set, found = sources.load(source, root, cfg.dataset, cfg.on_bad_image)
    sets = (*split(train_set, cfg.val_size, cfg.seed, cfg.fold, cfg.folds), test_set)
    train_set, val_set, test_set = (part[: cfg.limit].to(machine.device) for part in sets)
    counts = train_set.counts(cfg.dataset.classes)
    train_set = train_set.repeated(cfg.dataset.repeats)
    run.note(**found)

    # 3. All that changes while the model trains: this is what a checkpoint holds.
    steps = curriculum.steps(len(train_set))
    scheduler = build_schedule(cfg, optimizer, steps)
    image_losses = torch.zeros(len(train_set), device=machine.device)
    state = State(model, optimizer, scheduler, steps, image_losses, cfg.seed, cfg.ema)
    machine.compile(model, cfg.compile, sum(steps))
    state.trained = machine.distribute(model)  # across processes, if torchrun has started several
    run.begin(state)  # loads last.pt if there is one
    log.info(counts)
    if small := curriculum.small_epochs:
        log.info("epochs 1 to %d show smaller images: meanwhile, validation accuracy is low", small)

    # 4. Train; validate after each epoch.
    with Autosave(state, run.folder / "last.pt", **cfg.checkpoint) as autosave:
        while state.epoch < cfg.epochs:
            epoch = curriculum.epoch(state.epoch, train_set, state.image_losses, len(state.losses))
            train = train_epoch(
                state, epoch, machine, cfg.label_smoothing, cfg.grad_clip, autosave.after_step
            )
            val = evaluate(state.evaluated, val_set, machine, augmentation)
            state.end_epoch(train, val)
            run.write_epoch(state)
            autosave.after_epoch()
            report_to_search(cfg.trial, cfg.epochs, state.history)

    # 5. Test, once, with the weights that were best on validation.
    model.load_state_dict(state.best_weights)
    test = evaluate(model, test_set, machine, augmentation)
    run.note(test_accuracy=test["accuracy"], test_loss=test["loss"], **state.summary())


if __name__ == "__main__":
    with errors_as_sentences():
        launch(main)
