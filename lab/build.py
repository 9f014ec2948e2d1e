"""Build what the config names: models, optimizers, schedulers, datasets."""

import copy
import inspect
import re
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from typing import Any

from hydra._internal.utils import _locate
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from lab.arguments import is_number, needed, parameters_of, takes_any
from lab.cause import described, place, root
from lab.errors import ConfigError, explain
from lab.extras import how_to_install
from lab.hints import nearest
from lab.memory import bounded
from lab.schedule import NOT_ARGUMENTS, Schedule, complete, scheduler_node
from lab.schema import text_numbers

# What a group must build: a class by its full name, not imported before it is needed.
KINDS = {
    "model": "torch.nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "scheduler": "torch.optim.lr_scheduler.LRScheduler",
}
OF_HYDRA = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
# Lines that only call a part of torch: what happened is about its arguments.
CALLS = re.compile(r"(script|training)\.py:")


def build(cfg: DictConfig, group: str, *args: Any, **known: Any) -> Any:
    """Instantiate a config group; with `args`, call the `_partial_` that it gives.

    `known` are values of the config that are not known before the run, like `total_steps`, to which
    the group may refer. Raises ConfigError if the class does not exist, refuses its arguments, or
    is not of the kind that the group needs.
    """
    if known:  # merging copies the whole config
        with open_dict(cfg):  # the optimizer may have no lr
            cfg = OmegaConf.merge(cfg, known)
    node = scheduler_node(cfg) if group == "scheduler" else cfg[group]
    if group == "optimizer":
        node = _without_null_lr(node)
        args = ([*args[0]], *args[1:])  # not a generator, which can be read once
    built = make(node, group, *args)
    _check_kind(type(built), group, node)  # of what a function returns, too
    if group == "optimizer":
        _check_step(node, *args)
    return built


def build_schedule(cfg: DictConfig, optimizer: Any, steps: list[int]) -> Schedule:
    """The schedule of a run with these `steps` in each epoch. Raises ConfigError.

    `total_steps` is how often the scheduler is stepped: with `interval: epoch`, once per epoch. A
    reference to `optimizer.lr` finds that of the optimizer where the config sets none.
    """
    interval = cfg.scheduler.get("interval", "step")
    total_steps = sum(steps) if interval == "step" else len(steps)
    known: dict[str, Any] = {"total_steps": total_steps}
    for group in optimizer.param_groups:
        group.setdefault("lr", 1.0)  # every scheduler multiplies it
    if OmegaConf.select(cfg, "optimizer.lr") is None:
        known["optimizer"] = {"lr": optimizer.param_groups[0]["lr"]}
    scheduler = build(cfg, "scheduler", optimizer, **known)
    return Schedule(scheduler, interval, cfg.scheduler.get("monitor"))


def make(node: DictConfig, key: str, *args: Any, **arguments: Any) -> Any:
    """Instantiate a node of the config, whose full key is `key`, with more `arguments`; with
    `args`, call the `_partial_` that it gives. Raises ConfigError for whatever that raises."""
    _check_classes(node, key, arguments)
    if key in KINDS:
        _check_kind(_locate(node._target_), key, node)
    try:
        with bounded("the model") if key == "model" else nullcontext():
            built = instantiate(node, **arguments)
        return complete(built, *args) if args else built
    except Exception as error:  # whatever a constructor raises
        raise ConfigError(blame(node, key, error)) from error


def locate(cfg: DictConfig, group: str) -> Any:
    """The class that a config group names, as a `partial` with the arguments of the group. Raises
    ConfigError if it does not exist or does not have these arguments."""
    return make(OmegaConf.select(cfg, group), group, _partial_=True)


def blame(node: DictConfig, group: str, error: Exception) -> str:
    """The sentence for what the class of a group has raised."""
    cause = root(error)
    reason = explain(cause) or f"{described(cause)}."
    if not isinstance(cause, ValueError) and (not (where := place(cause)) or CALLS.match(where)):
        values = OmegaConf.to_container(node, resolve=True)
        names = [key for key in values if str(key)[0] != "_" and key not in NOT_ARGUMENTS]
        said = ", ".join(f"{key}={values[key]}" for key in names)
        reason += f" Check its arguments: {said or 'none'}."
    reason += "".join(f" {sentence}" for sentence in text_numbers(node, group))
    return f"{group} ({node.get('_target_')}): {reason}"


def _check_kind(found: Any, group: str, node: DictConfig) -> None:
    """Raises ConfigError for a class that is not of the kind that the group needs: before it is
    built, since a dataset, for instance, might download files."""
    kind = KINDS[group]
    if inspect.isclass(found) and not issubclass(found, _locate(kind)):
        raise ConfigError(
            f"{group} ({node._target_}) gives a {found.__name__}, which is not a {kind}: "
            "name another class with _target_, one that is derived from it."
        )


def _without_null_lr(node: DictConfig) -> DictConfig:
    """The node of an optimizer without an `lr` of null, which stands for that of its class."""
    if "lr" in node and node.lr is None:
        return OmegaConf.masked_copy(node, [key for key in node if key != "lr"])
    return node


def _check_step(node: DictConfig, parameters: list[Any], *args: Any) -> None:
    """Raises ConfigError for an optimizer whose step needs more than a gradient of each of the
    `parameters`, which remain as they are."""
    optimizer = make(node, "optimizer", copy.deepcopy(parameters), *args)
    for weights in (weights for group in optimizer.param_groups for weights in group["params"]):
        weights.grad = weights.detach() * 0
    try:
        optimizer.step()
    except Exception as error:  # whatever a step raises
        raise ConfigError(
            f"optimizer ({node._target_}): {described(root(error))}. script.py calls its step "
            "without a closure, and all gradients are dense: use an optimizer that needs no more."
        ) from error


def _check_classes(node: DictConfig, group: str, given: Collection[str] = ()) -> None:
    """Raises ConfigError for a class, also of an argument, that does not exist or does not have the
    arguments that the config gives it; `given` are those that the code adds."""
    for key, arguments in _classes(OmegaConf.to_container(node, resolve=True), group):
        target = arguments["_target_"]
        try:
            found = _locate(str(target))
        except Exception as error:
            raise ConfigError(f"{key} ({target}): {_not_found(str(target), error)}") from error
        if not callable(found):
            raise ConfigError(f"{key} ({target}) is not a class: write MODULE.CLASS.")
        parameters = parameters_of(found)
        for name, value in arguments.items():
            if name not in parameters and name not in OF_HYDRA and not takes_any(parameters):
                raise ConfigError(
                    f"{key}.{name} is not an argument of {target}.{nearest(name, parameters)}"
                )
            if isinstance(value, bool) and name in parameters and is_number(parameters[name]):
                raise ConfigError(
                    f"{key}.{name}={str(value).lower()} is not allowed: {target} takes a number."
                )
        missing = [name for name in needed(parameters) if name not in {*arguments, *given}]
        is_partial = arguments.get("_partial_") or "_partial_" in given
        if missing and "_args_" not in arguments and not is_partial:
            raise ConfigError(
                f"{key}.{missing[0]} is missing: {target} needs it. Add it to the file of {key}, "
                f"or give it as +{key}.{missing[0]}=…"
            )


def _classes(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes with a `_target_` by their full keys, `node` itself included."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from _classes(value, f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _classes(value, f"{key}[{index}]")


def _not_found(target: str, error: Exception) -> str:
    """Why a class could not be found, as a sentence."""
    cause = root(error)
    owner, _, name = target.rpartition(".")
    missing = getattr(cause, "name", None) if isinstance(cause, ModuleNotFoundError) else None
    if not owner:
        return f"it is not the full name of a class: write MODULE.{name or 'CLASS'}."
    if missing and f"{owner}.".startswith(f"{missing}."):
        remedy = how_to_install(missing) or "correct the name, or install what provides it"
        return f"there is no module {missing}: {remedy}."
    is_attribute = isinstance(cause, AttributeError) and place(cause) is None
    if missing != target and not is_attribute:
        return explain(cause) or f"{described(cause)}."
    module = _locate(owner)
    options = [word for word, value in vars(module).items() if _is_class_of(value, owner)]
    said = f" It has {', '.join(options)}." if 0 < len(options) <= 20 else ""
    return f"{owner} has no {name}.{nearest(name, options) or said}"


def _is_class_of(value: Any, module: str) -> bool:
    return inspect.isclass(value) and value.__module__.startswith(module)
