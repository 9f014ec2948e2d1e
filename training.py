"""One epoch of training, evaluation, and the choice of device and precision."""

import ctypes
import os
import platform
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from tqdm import tqdm

import data
from config import schema
from config.errors import ConfigError
from state import State

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
COMPILE_STEPS = 10_000  # on two cores compiling takes about as long as it saves in so many steps
EVAL_BATCH = 1000  # images; large enough to keep the cores busy, small enough for any memory


def prepare(cfg: DictConfig) -> None:
    """Settle where and how to compute; what was "auto" is written into `cfg`."""
    cfg.device = choose_device(cfg.device)
    cfg.precision = choose_precision(cfg.precision, cfg.device)
    choose_kernels(cfg.device, cfg.precision)
    set_deterministic(cfg.deterministic)
    seed_everything(cfg.seed)


def build_model(cfg: DictConfig) -> nn.Module:
    """The model on its device. Convolutions are faster when a pixel's channels lie side by side;
    other layers do not notice.

    Raises ConfigError for a model that cannot take the smaller images of the first epochs.
    """
    model = schema.build(cfg, "model").to(cfg.device, memory_format=torch.channels_last)
    if small_epochs(cfg):
        side = cfg.dataset.image_size
        image = torch.zeros(1, cfg.dataset.in_channels, side, side, device=cfg.device)
        small = data.resized(image, cfg.shrink.factor)
        try:
            with torch.inference_mode():
                model.eval()(small)
        except RuntimeError as error:
            raise ConfigError(
                f"shrink.share={cfg.shrink.share} trains on smaller images first: "
                f"{cfg.model._target_}, built for {side} × {side} pixels, cannot take "
                f"{small.shape[2]} × {small.shape[3]}. Set shrink.share=0."
            ) from error
    return model


def choose_device(wanted: str) -> str:
    """The device to run on. Raises ConfigError for one that this machine does not have."""
    present = [name for name in ("cuda", "mps") if getattr(torch, name).is_available()] + ["cpu"]
    if wanted == "auto":
        return present[0]
    if wanted not in present:
        raise ConfigError(
            f"device={wanted} is not on this machine: use auto or one of {', '.join(present)}."
        )
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """For "auto", bf16 where the hardware multiplies it natively: emulated, it is slow."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        native = device == "cpu" and bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return "bf16" if native else "fp32"


def choose_compile(wanted: bool | str, total_steps: int) -> bool:
    """For "auto", whether a run is long enough to earn the time back that torch.compile takes."""
    return total_steps >= COMPILE_STEPS if wanted == "auto" else bool(wanted)


def choose_kernels(device: str, precision: str) -> None:
    """What makes a step faster on a CPU; `benchmarks/README.md` tells by how much."""
    # The flash kernel is made for long sequences: for a few tokens in bf16 plain products win.
    torch.backends.cuda.enable_flash_sdp(device != "cpu" or precision != "bf16")  # CPUs heed it too
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        # Every step allocates the same sizes: keep them, instead of handing large blocks back to
        # the system and having it map and clear them again.
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def set_deterministic(wanted: bool) -> None:
    """Bit-equal results on one device; an operation that cannot give them raises RuntimeError."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(wanted)


def device_name(device: str) -> str:
    """The processor's name, as its maker prints it where that can be found out."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def seed_everything(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)  # every device's generator


def small_epochs(cfg: DictConfig) -> int:
    """How many epochs, from the first on, train on smaller images."""
    return int(cfg.shrink.share * cfg.epochs)


def skip_easy(cfg: DictConfig, epoch: int) -> float:
    """Whether and what an epoch skips: the last sixteenth of the epochs shows all images again."""
    return cfg.skip_easy if epoch < cfg.epochs - cfg.epochs // 16 else 0.0


def count_steps(cfg: DictConfig, images: int) -> list[int]:
    """The steps of every epoch over so many training images."""
    sizes = [data.epoch_size(images, skip_easy(cfg, epoch)) for epoch in range(cfg.epochs)]
    return [data.num_batches(size, cfg.batch_size) for size in sizes]


def new_state(cfg: DictConfig, model: nn.Module, optimizer: Optimizer, images: int) -> State:
    """The state before the first step over so many training images. Writes `cfg.total_steps`, which
    the scheduler is built by."""
    steps = count_steps(cfg, images)
    cfg.total_steps = sum(steps)
    scheduler = schema.build(cfg, "scheduler", optimizer)
    return State(model, optimizer, scheduler, steps, torch.zeros(images, device=cfg.device))


def autocast(cfg: DictConfig) -> torch.autocast:
    return torch.autocast(cfg.device, dtype=torch.bfloat16, enabled=cfg.precision == "bf16")


def train_epoch(
    state: State,
    images: data.ImageSet,
    cfg: DictConfig,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """What is left of one pass over the training images; returns the mean loss of the whole.

    Nothing waits for the device inside the epoch: losses are collected there and looked at once, at
    the end. Raises FloatingPointError, naming epoch and step, for a loss that is not finite.
    """
    model, optimizer, scheduler = state.model, state.optimizer, state.scheduler
    smoothing, grad_clip, precision = cfg.label_smoothing, cfg.grad_clip, autocast(cfg)
    augmentation = data.Augmentation(**cfg.augmentation)
    share = skip_easy(cfg, state.epoch)
    plan = data.plan_epoch(state.image_losses, share, augmentation, cfg.seed, state.epoch)
    done, steps = len(state.losses), data.num_batches(len(plan.order), cfg.batch_size)
    batches = data.batches(images, plan, cfg.batch_size, augmentation, start=done)
    shrunk = state.epoch < small_epochs(cfg)
    title = f"epoch {state.epoch + 1}"
    state.begin_epoch()
    model.train()
    for batch, weights in tqdm(batches, title, steps, initial=done, leave=False, disable=None):
        with precision:
            pixels = batch.normalised()
            logits = model(data.resized(pixels, cfg.shrink.factor) if shrunk else pixels)
        losses = F.cross_entropy(
            logits.float(), batch.labels, label_smoothing=smoothing, reduction="none"
        )
        optimizer.zero_grad()
        (losses @ weights / weights.sum()).backward()
        if grad_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        scheduler.step()
        state.losses.append(losses.detach())
        after_step()
    losses = torch.cat(state.losses)
    _refuse_infinite(losses.cpu(), cfg.batch_size, state.epoch + 1)
    state.image_losses[plan.order[: len(losses)]] = losses
    weights = plan.weights[: len(losses)]
    return (losses @ weights / weights.sum()).item()


def _refuse_infinite(losses: Tensor, batch_size: int, epoch: int) -> None:
    if not losses.isfinite().all():
        first = int((~losses.isfinite()).nonzero()[0])
        raise FloatingPointError(
            f"The loss became {losses[first].item()} in epoch {epoch}, step "
            f"{first // batch_size + 1}: "
            "lower optimizer.lr, set grad_clip=1, or use precision=fp32."
        )


@torch.inference_mode()
def evaluate(model: nn.Module, images: data.ImageSet, cfg: DictConfig) -> dict[str, float]:
    """Mean cross-entropy and accuracy (0 … 1) of `model` on `images`."""
    logits = predict(model, images, cfg)
    return {
        "loss": F.cross_entropy(logits, images.labels).item(),
        "accuracy": (logits.argmax(1) == images.labels).double().mean().item(),
    }


@torch.inference_mode()
def predict(model: nn.Module, images: data.ImageSet, cfg: DictConfig) -> Tensor:
    """Logits `(N, num_classes)` in float32.

    A model that was taught that mirror images are alike is asked about both; the mean counts.
    """
    model.eval()
    forward = model.forward  # not the call, which would compile a compiled model again
    logits = []
    for start in range(0, len(images), EVAL_BATCH):
        batch = images[start : start + EVAL_BATCH].normalised()
        with autocast(cfg):
            answer = forward(batch).float()
            if cfg.augmentation.mirror:
                answer = (answer + forward(batch.flip(3)).float()) / 2
        logits.append(answer)
    return torch.cat(logits)
