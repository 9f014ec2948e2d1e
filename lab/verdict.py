"""The last sentence of a run that finished: what it has shown."""

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

if TYPE_CHECKING:
    from lab.state import State

FALLEN = 0.8  # of the first epoch's loss: a loss that stays above has hardly fallen


def sentence(result: dict[str, Any], cfg: DictConfig, state: "State") -> str:
    """The test accuracy; with `memorise`, whether the training images were memorised."""
    if not cfg.memorise:
        accuracy, epoch = result["test_accuracy"], result["best_epoch"]
        return f"test accuracy {accuracy:.2%} (weights of epoch {epoch})"
    count = len(state.image_losses)
    right = round(result["val_accuracy"] * count)
    what = "a batch" if count <= cfg.batch_size else "its training images"
    if right == count:
        return f"the model can memorise {what}: {right} of {count}"
    return (
        f"the model cannot memorise {what}: {right} of {count} after {state.epoch} epochs. "
        f"{_advice([row['train_loss'] for row in state.history])}"
    )


def _advice(losses: list[float]) -> str:
    first, least = losses[0], min(losses)
    if least > FALLEN * first:
        return (
            f"The loss hardly fell, from {first:.3f} to {least:.3f}: set another optimizer.lr, and "
            "check that the forward pass uses the images, and that no detach(), argmax or no_grad "
            "keeps the gradient from the weights."
        )
    return (
        f"The loss fell from {first:.3f} to {least:.3f}: give it more epochs or another "
        "optimizer.lr, switch dropout off, or make the model larger."
    )
