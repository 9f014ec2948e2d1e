"""The experiment of script.py without its run folder, for the benchmarks that measure a part."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from harness import PROJECT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

import sources
from data import Augmentation, Curriculum, ImageSet, Shrink, split
from lab import schema
from lab.build import build, build_schedule
from lab.machine import Machine
from lab.state import State
from training import train_epoch


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config that `python script.py OVERRIDES` composes, checked."""
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    schema.check(cfg)
    return cfg


def load_images(cfg: DictConfig) -> tuple[ImageSet, ImageSet]:
    """All training images and all test images."""
    source = instantiate(cfg.dataset.source, _partial_=True)
    return sources.load(source, sources.data_root(cfg.data_dir), cfg.dataset)[:2]


def finish(device: str) -> None:
    """Wait for what the device still computes."""
    if device != "cpu":
        torch.accelerator.synchronize()


@dataclass(frozen=True)
class Experiment:
    """What `script.experiment` builds before its first epoch."""

    cfg: DictConfig
    machine: Machine
    augmentation: Augmentation
    curriculum: Curriculum
    train_set: ImageSet
    test_set: ImageSet
    state: State

    @classmethod
    def prepare(cls, cfg: DictConfig) -> "Experiment":
        machine = Machine.prepare(cfg.device, cfg.precision, cfg.deterministic, cfg.seed)
        augmentation, shrink = Augmentation(**cfg.augmentation), Shrink(**cfg.shrink)
        curriculum = Curriculum(
            cfg.epochs, cfg.batch_size, cfg.seed, augmentation, shrink, cfg.skip_easy
        )
        model = build(cfg, "model")
        machine.place(model)
        optimizer = build(cfg, "optimizer", model.parameters())
        train_set, test_set = load_images(cfg)
        train_set, _ = split(train_set, cfg.val_size, cfg.seed)
        sets = train_set, test_set
        train_set, test_set = (part[: cfg.limit].to(machine.device) for part in sets)
        train_set = train_set[torch.arange(len(train_set)).repeat(cfg.dataset.repeats)]
        steps = curriculum.steps(len(train_set))
        scheduler = build_schedule(cfg, optimizer, steps)
        image_losses = torch.zeros(len(train_set), device=machine.device)
        state = State(model, optimizer, scheduler, steps, image_losses)
        machine.compile(model, cfg.compile, sum(steps))
        return cls(cfg, machine, augmentation, curriculum, train_set, test_set, state)

    def train_epoch(self) -> dict[str, float]:
        """Train for one epoch, which `state.end_epoch` ends. Returns the figures of
        `training.train_epoch`."""
        state, cfg = self.state, self.cfg
        epoch = self.curriculum.epoch(state.epoch, self.train_set, state.image_losses, start=0)
        return train_epoch(state, epoch, self.machine, cfg.label_smoothing, cfg.grad_clip)
