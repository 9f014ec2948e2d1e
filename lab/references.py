"""References between keys, like `${optimizer.lr}`, in a config that may come from a stranger."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf, grammar_parser
from omegaconf.base import Container
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser

from lab.errors import ConfigError
from lab.escape import one_line

# References to other keys: a value with a longer one, or a config in which more are followed, is
# not that of a run. Without a limit, ten references to ten references and so on fill any memory.
LONGEST = 1000  # characters of a value with a reference
MOST_REFERENCES = 1000  # followed in the whole config
MOST_VALUES = 20_000


def calls_resolver(text: str) -> bool:
    """Whether a value calls a resolver, like `${oc.env:HOME}`, and not only refers to other keys.

    Raises ConfigError for a reference that cannot be read.
    """
    if "${" not in text:
        return False
    try:
        nodes: list[Any] = [grammar_parser.parse(text)]
    except (GrammarParseError, RecursionError) as error:
        raise ConfigError(f"{one_line(text)!r:.200} is not a reference to a key.") from error
    while nodes:
        node = nodes.pop()
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            return True
        nodes += getattr(node, "children", None) or ()
    return False


def resolved(config: dict[str, Any], source: Path) -> dict[str, Any]:
    """The config with the values to which references lead, or as it is if one leads nowhere, which
    is explained when it is used.

    Raises ConfigError if references lead in circles, or to more values than a config has.
    """
    cfg = OmegaConf.create(config)
    nodes: list[Any] = [cfg]
    with _counted_references() as left:
        for _ in range(MOST_VALUES):
            if not nodes or left[0] < 0:
                break
            node = nodes.pop()
            if isinstance(node, Container) and not node._is_none() and not node._is_missing():
                keys = range(len(node)) if isinstance(node, ListConfig) else node
                nodes += [_followed(node, key) for key in keys]
    if nodes:
        raise ConfigError(
            f"{source} is not the config of a run: its references lead in circles, or to more "
            f"than {MOST_VALUES} values."
        )
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException:
        return config


def _followed(node: Container, key: Any) -> Any:
    """The node to which the value of a key refers, or the node of the key itself."""
    found: Any = node._get_node(key)
    return found._maybe_dereference_node(throw_on_resolution_failure=False)


@contextmanager
def _counted_references() -> Iterator[list[int]]:
    """Within the context, OmegaConf follows MOST_REFERENCES references, and then none. Yields how
    many are left, in a list of one."""
    resolve, left = Container.resolve_parse_tree, [MOST_REFERENCES]

    def counted(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise InterpolationResolutionError("there are too many references")
        return resolve(*arguments, **named)

    Container.resolve_parse_tree = counted  # type: ignore[method-assign]
    try:
        yield left
    finally:
        Container.resolve_parse_tree = resolve  # type: ignore[method-assign]
