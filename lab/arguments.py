"""The arguments of the classes that a config names."""

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from hydra._internal.utils import _locate

BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def parameters_of(found: Any) -> Mapping[str, Parameter]:
    """The parameters of a class or function by their names; empty if they cannot be known."""
    try:
        return inspect.signature(found).parameters
    except (TypeError, ValueError):  # a class in C
        return {}


def takes_any(parameters: Mapping[str, Parameter]) -> bool:
    """Whether there is a `**kwargs`, or nothing is known."""
    return not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def needed(parameters: Mapping[str, Parameter]) -> list[str]:
    """The parameters that have no default."""
    return [p.name for p in parameters.values() if p.default is p.empty and p.kind in BY_NAME]


def is_number(parameter: Parameter) -> bool:
    """Whether a parameter is declared as a number, or has one as its default."""
    return parameter.annotation in (int, float) or type(parameter.default) in (int, float)


def how_to_add(group: str, name: str, node: Mapping[str, Any]) -> str:
    """A sentence on how to pass the argument `name`, which is not in the group's `node`, or else
    which arguments its class has."""
    target = node["_target_"]
    try:
        parameters = parameters_of(_locate(target))
    except Exception:  # whatever the import of a module raises: building the class will tell
        parameters = {}
    if name in parameters or takes_any(parameters):
        return f" To pass another argument of its class, write +{group}.{name}=…"
    others = [p for p, v in parameters.items() if p not in node and v.default is not v.empty]
    if not others:
        return f" {target} has no {name}."
    return (
        f" {target} has no {name}; its other arguments are added with a plus, as in "
        f"+{group}.{others[0]}=…: {', '.join(others)}."
    )
