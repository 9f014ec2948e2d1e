"""When each scheduler is stepped, and with which learning rates."""

import csv
import math

import pytest
import torch
from conftest import composed, half_slow, options
from omegaconf import OmegaConf
from torch.optim import lr_scheduler

from lab import schema, trust
from lab.build import build, build_schedule
from lab.errors import ConfigError
from lab.schedule import Schedule

LR = 0.5


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def schedule_of(*overrides: str, steps: list[int]) -> Schedule:
    cfg = composed("optimizer=sgd", f"optimizer.lr={LR}", *overrides)
    schema.check(cfg)
    return build_schedule(cfg, optimizer(), steps)


def rates_of(schedule: Schedule, steps: list[int], losses: list[float] | None = None) -> list:
    """The learning rate of every step; `losses` are those on validation, per epoch."""
    rates = []
    for number, count in enumerate(steps):
        for _ in range(count):
            schedule.scheduler.optimizer.step()
            schedule.step()
            rates.append(schedule.lr)
        loss = losses[number] if losses else 1.0
        schedule.end_epoch({"val_loss": loss, "val_accuracy": 1 - loss})
    return rates


def test_step_follows_torchs_own_scheduler():
    reference = lr_scheduler.StepLR(optimizer(), step_size=2, gamma=0.1)
    expected = []
    for _ in range(5):
        expected += [reference.get_last_lr()[0]] * 3
        reference.optimizer.step()
        reference.step()
    schedule = schedule_of(
        "scheduler=step", "scheduler.step_size=2", "scheduler.gamma=0.1", steps=[3] * 5
    )
    assert rates_of(schedule, [3] * 5) == expected


def test_the_rate_is_that_of_the_step_that_was_taken(script, tmp_path):
    words = ("dataset=digits", "model=linear", "~tuned", "limit=256", "scheduler=cosine")
    assert script(*words, "epochs=2", "hydra.run.dir=run") == 0
    with (tmp_path / "run/metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    per_epoch = 256 * composed(*words).dataset.repeats // 128
    steps = [per_epoch - 1, 2 * per_epoch - 1]
    expected = [2e-3 * (1 + math.cos(math.pi * step / (2 * per_epoch))) / 2 for step in steps]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("mode", "monitor"), [("min", "val_loss"), ("max", "val_accuracy")])
def test_plateau_lowers_the_rate_when_validation_does_not_improve(mode, monitor):
    chosen = (f"scheduler.mode={mode}", f"scheduler.monitor={monitor}", "scheduler.factor=0.5")
    schedule = schedule_of("scheduler=plateau", *chosen, steps=[2] * 6)
    rates = rates_of(schedule, [2] * 6, losses=[0.9, 0.8, 0.8, 0.8, 0.7, 0.6])
    assert rates == [LR] * 8 + [LR / 2] * 4  # patience: 1, so it is the second bad epoch


@pytest.mark.parametrize("total", [1, 2, 5, 20, 21, 400])
def test_warmup_cosine_rises_linearly_and_falls_to_zero(total):
    schedule = schedule_of("scheduler=warmup_cosine", steps=[total])
    rates = rates_of(schedule, [total])
    warmup = max(1, round(0.05 * total))
    rising = [LR * (0.01 + 0.99 * step / warmup) for step in range(warmup)]
    length = total - warmup
    falling = [LR * (1 + math.cos(math.pi * step / length)) / 2 for step in range(length)]
    assert rates == pytest.approx(rising + falling)
    assert total == 1 or schedule.scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_a_sequence_may_have_any_schedulers_and_milestones_in_steps():
    parts = ",".join(
        f"{{_target_:torch.optim.lr_scheduler.{name}LR,_partial_:true,{arguments}}}"
        for name, arguments in [
            ("Constant", "factor:0.1,total_iters:99"),
            ("Linear", "start_factor:0.5,total_iters:${total_steps}"),
            ("Exponential", "gamma:0.5"),
        ]
    )
    chosen = (f"scheduler.schedulers=[{parts}]", "scheduler.milestones=[2,0.6]")
    rates = rates_of(schedule_of("scheduler=warmup_cosine", *chosen, steps=[10]), [10])
    linear = [LR * (0.5 + 0.5 * step / 4) for step in range(4)]
    assert rates == pytest.approx([LR / 10] * 2 + linear + [LR, LR / 2, LR / 4, LR / 8])


def test_chained_schedulers_get_the_optimizer_by_name():
    cfg = composed("optimizer=sgd")
    nested = [
        {"_target_": f"torch.optim.lr_scheduler.{name}", "_partial_": True} | arguments
        for name, arguments in [
            ("LinearLR", {"start_factor": 0.5, "total_iters": 2}),
            ("CosineAnnealingLR", {"T_max": "${total_steps}"}),
        ]
    ]
    cfg.scheduler = {
        "_target_": "torch.optim.lr_scheduler.ChainedScheduler",
        "_partial_": True,
        "schedulers": nested,
    }
    rates = rates_of(build_schedule(cfg, optimizer(), [4]), [4])
    cosine = [LR * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert rates == pytest.approx([cosine[0] / 2, cosine[1] * 0.75, *cosine[2:]])


def test_milestones_of_a_multi_step_scheduler_may_be_shares():
    cfg = composed("scheduler=step", "~scheduler.step_size", "+scheduler.milestones=[0.5,9]")
    cfg.scheduler._target_ = "torch.optim.lr_scheduler.MultiStepLR"
    rates = rates_of(build_schedule(cfg, optimizer(), [1] * 10), [1] * 10)
    assert rates == pytest.approx([LR] * 5 + [LR * 0.7] * 4 + [LR * 0.49])


def test_total_steps_counts_epochs_for_a_scheduler_that_is_stepped_per_epoch():
    schedule = schedule_of("scheduler=cosine", "scheduler.interval=epoch", steps=[3] * 4)
    rates = rates_of(schedule, [3] * 4)
    assert rates[::3] == pytest.approx([LR * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)])
    assert rates[1::3] == rates[::3]


@pytest.mark.parametrize("name", options("scheduler"))
def test_a_run_folder_may_name_every_scheduler(name, tmp_path):
    config = OmegaConf.to_container(composed(f"scheduler={name}"), resolve=False)
    trust.check_foreign(config | {"name": "x", "data_dir": None}, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    half_slow(
        [
            (
                ["step", "scheduler.interval=epochs"],
                "interval=epochs is not allowed: use one of step, epoch. Did",
            ),
            (
                ["plateau", "scheduler.monitor=val_los"],
                "monitor=val_los is not allowed.*Did you mean val_loss",
            ),
            (
                ["plateau", "scheduler.interval=step"],
                "interval=step is not possible for ReduceLROnPlateau.*interval: ep",
            ),
            (["plateau", "~scheduler.interval"], "scheduler.interval=step is not possible"),
            (
                ["plateau", "scheduler.mode=max"],
                "mode=max with monitor=val_loss would lower.*set .*mode=min",
            ),
            (["plateau", "scheduler.monitor=val_accuracy"], "set scheduler.mode=max"),
            (["plateau", "scheduler.factor=2"], r"ReduceLROnPlateau\): Factor should be < 1.0"),
            (["step", "+scheduler.monitor=val_loss"], "monitor=val_loss has no effect on StepLR"),
            (
                ["step", "+scheduler.gama=1"],
                "gama is not an argument of .*StepLR. Did you mean gamma",
            ),
            (["warmup_cosine", "scheduler.milestones=[1,2]"], r"SequentialLR\)"),
            (
                ["warmup_cosine", "scheduler.milestones=[a]"],
                "milestones=.* must be a list of numbers",
            ),
            (
                ["warmup_cosine", "scheduler.milestones=0.1"],
                "milestones=.* must be a list of numbers",
            ),
            (
                ["warmup_cosine", "scheduler.milestones=[-1]"],
                "milestones=.* must be a list of numbers",
            ),
            (["warmup_cosine", "scheduler.schedulers=[]"], r"SequentialLR\)"),
        ]
    ),
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_contradict_the_scheduler_are_refused(overrides, message):
    name, *others = overrides
    with pytest.raises(ConfigError, match=message):
        schedule_of(f"scheduler={name}", *others, steps=[10])


def test_build_gives_torchs_own_classes():
    cfg = composed("scheduler=warmup_cosine", "optimizer=sgd")
    built = build(cfg, "scheduler", optimizer(), total_steps=7)
    assert type(built) is lr_scheduler.SequentialLR
