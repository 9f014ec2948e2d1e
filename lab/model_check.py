"""A model is tried on a batch of zeros before any data is read."""

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lab import group
from lab.build import blame
from lab.errors import ConfigError
from lab.generators import generators, set_generators


def check_model(model: nn.Module, cfg: DictConfig, sizes: Sequence[int]) -> None:
    """Raises ConfigError for a model that does not map images `(B, C, H, W)` to logits
    `(B, num_classes)`, in training as well as in evaluation.

    `sizes` are the sides, in pixels, of the images that it will see; the first is that of the
    dataset. Neither the weights nor the statistics of the model change, nor do random generators.
    """
    if "_modules" not in vars(model):
        raise ConfigError(
            f"model ({cfg.model._target_}): its constructor does not call super().__init__()."
        )
    is_training, random_state = model.training, generators()
    own = group.columns(min(cfg.batch_size, cfg.limit or cfg.batch_size))
    smallest = min(2, own.stop - own.start)  # images in a batch, or in this process's share of one
    try:
        for size in sizes:
            for count, training in ((2, False), (smallest, True)):
                images = torch.zeros(count, cfg.dataset.in_channels, size, size)
                logits = _logits(model.train(training), cfg, images, sizes[0])
                _check_logits(logits, cfg, count)
                has_weights = any(weights.requires_grad for weights in model.parameters())
                if training and has_weights and not logits.requires_grad:
                    raise ConfigError(
                        f"model ({cfg.model._target_}) returns logits without a gradient: its "
                        "forward must neither detach tensors nor turn gradients off."
                    )
    finally:
        model.train(is_training)
        set_generators(random_state)


def materialise(model: nn.Module, cfg: DictConfig) -> nn.Module:
    """`model`, its lazy layers with the shapes that they get from a batch of zeros."""
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        is_training, facts = model.training, cfg.dataset
        images = torch.zeros(2, facts.in_channels, facts.image_size, facts.image_size)
        with torch.no_grad():
            model.eval()(images)
        model.train(is_training)
    return model


def _logits(model: nn.Module, cfg: DictConfig, images: Tensor, full_size: int) -> Any:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers() if model.training}
    try:
        with torch.set_grad_enabled(model.training):
            return model(images)
    except Exception as error:  # whatever a model raises
        size = images.shape[-1]
        if size != full_size:
            raise ConfigError(
                f"shrink.share={cfg.shrink.share} trains on smaller images first: "
                f"{cfg.model._target_}, built for {full_size} × {full_size} pixels, cannot take "
                f"{size} × {size}. Set shrink.share=0."
            ) from error
        raise ConfigError(
            f"{blame(cfg.model, 'model', error)} It must accept images {tuple(images.shape)}, as "
            "(batch, channels, height, width)."
        ) from error
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():  # batch norm has changed its statistics
                if name in buffers:
                    buffer.copy_(buffers[name])


def _check_logits(logits: Any, cfg: DictConfig, count: int) -> None:
    wanted, advice = (count, cfg.dataset.num_classes), ""
    if logits is None:
        found, advice = "None", " Is a return missing in its forward?"
    elif not isinstance(logits, Tensor):
        found = f"a {type(logits).__name__}"
    elif not logits.is_floating_point():
        found = f"a tensor of {str(logits.dtype).removeprefix('torch.')}"
    elif tuple(logits.shape) != wanted:
        found = f"a tensor {tuple(logits.shape)}"
        if logits.shape[:1] == (count,) and logits.ndim == 2:
            advice = " Its last layer must have num_classes outputs."
    else:
        return
    raise ConfigError(
        f"model ({cfg.model._target_}) returns {found}, but the logits of {count} images must be a "
        f"float tensor {wanted}, since dataset.num_classes={wanted[1]}.{advice}"
    )
