"""One epoch of training, and evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from data import Augmentation, Epoch, ImageSet
from lab.group import joined, shared
from lab.machine import Machine
from lab.state import State

STABLER = "lower optimizer.lr, set grad_clip=1, or use precision=fp32."
EVAL_BATCH = 1000  # images; large enough to keep the cores busy, small enough for any memory


def train_epoch(
    state: State,
    epoch: Epoch,
    machine: Machine,
    label_smoothing: float = 0.0,
    grad_clip: float | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Train on the batches of `epoch`. Returns the mean loss, seconds and images per second.

    Nothing waits for the device within the epoch: the losses stay on it and are read once, at the
    end. Raises FloatingPointError, naming epoch and step, for a loss that is not finite.
    """
    model, optimizer, scheduler = state.trained, state.optimizer, state.scheduler
    state.start_clock()
    model.train()
    autocast = machine.autocast()  # once: its construction takes a noticeable part of a small step
    title = f"epoch {epoch.number + 1}"
    batches = tqdm(epoch, title, initial=epoch.start, leave=False, disable=None)
    for images, targets, shares in batches:
        with autocast:
            logits = model(images)
        losses = F.cross_entropy(
            logits.float(), targets, label_smoothing=label_smoothing, reduction="none"
        )
        optimizer.zero_grad()
        (losses @ shares).backward()  # the gradient of their weighted mean
        if grad_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        scheduler.step()
        state.losses.append(losses.detach())
        after_step()
    losses = state.gathered_losses()
    check_finite(losses.cpu(), epoch)
    state.image_losses[epoch.order[: len(losses)]] = losses
    weights = epoch.weights[: len(losses)]
    loss = (losses @ weights / weights.sum()).item()
    seconds = state.seconds()
    return {"loss": loss, "seconds": seconds, "images_per_second": len(losses) / seconds}


def check_finite(losses: Tensor, epoch: Epoch) -> None:
    if not losses.isfinite().all():
        first = int((~losses.isfinite()).nonzero()[0])
        raise FloatingPointError(
            f"The loss became {losses[first].item()} in epoch {epoch.number + 1}, step "
            f"{first // epoch.curriculum.batch_size + 1}: {STABLER}"
        )


@torch.inference_mode()
def evaluate(
    model: nn.Module, image_set: ImageSet, machine: Machine, augmentation: Augmentation
) -> dict[str, float]:
    """Mean cross-entropy, which must be finite, and accuracy (0 … 1) of `model` on `image_set`."""
    logits = predict(model, image_set, machine, augmentation)
    loss = F.cross_entropy(logits, image_set.labels)
    if not loss.isfinite():
        raise FloatingPointError(f"The loss in evaluation became {loss}: {STABLER}")
    accuracy = (logits.argmax(1) == image_set.labels).double().mean()
    return {"loss": loss.item(), "accuracy": accuracy.item()}


@torch.inference_mode()
def predict(
    model: nn.Module, image_set: ImageSet, machine: Machine, augmentation: Augmentation
) -> Tensor:
    """Logits `(N, num_classes)` in float32, averaged over the views that `augmentation` gives."""
    model.eval()
    forward = model.forward  # calling a compiled model would compile it again, for other sizes
    own, logits = shared(image_set), []  # each process of the run predicts its share
    for start in range(0, len(own), EVAL_BATCH):
        images = own[start : start + EVAL_BATCH].to(machine.device).normalised()
        with machine.autocast():
            answers = [forward(view).float() for view in augmentation.views(images)]
        logits.append(torch.stack(answers).mean(0))
    return joined(torch.cat(logits), len(image_set))
