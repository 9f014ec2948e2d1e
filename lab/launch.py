"""How the processes of a run start: one composes the config with Hydra, the others get it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lab import command_line, ranks, record, run, schema
from lab.errors import ConfigError, PeerFailed, explain
from lab.signals import exit_on_signals, ignore

if TYPE_CHECKING:
    from torch import nn

    from lab.state import State


def launch(main: Callable[..., Any]) -> None:
    """Call `main`, which `hydra.main` decorates, with the config of the command line."""
    if ranks.current().is_first:
        sys.argv = command_line.for_script(sys.argv)
        main()
    else:
        follow(main)


def follow(main: Callable[[DictConfig], Any]) -> Any:
    """Call `main` with the config that the first process of the run has composed."""
    return main(schema.typed(OmegaConf.create(ranks.announced()["config"])))


def refuse_several(what: str) -> None:
    """Raises ConfigError where torchrun has started several processes of what needs one."""
    if ranks.current().are_several:
        raise ConfigError(f"{what} works in one process: start it without torchrun.")


@contextmanager
def open_run(cfg: DictConfig) -> Iterator["run.Run | Follower"]:
    """`lab.run.open_run`, in a process that may be one of several: the first one opens the run."""
    if not ranks.current().is_first:
        with _following() as follower:
            yield follower
        return
    with run.open_run(cfg) as opened:
        if ranks.current().are_several and not opened.is_over:
            config = OmegaConf.to_yaml(OmegaConf.create(record.portable(cfg)))
            ranks.announce(folder=str(opened.folder), config=config)
        try:
            yield opened
        except (Exception, SystemExit) as error:
            if not ranks.current().are_several:
                raise
            # torchrun stops all processes by a signal when one has failed.
            is_signal = isinstance(error, SystemExit) and ranks.failed()
            if not is_signal and not ranks.is_of_connection(error):
                raise
            ignore()  # that signal may come now, while the reason is recorded
            raise PeerFailed(ranks.culprit()) from error


@contextmanager
def _following() -> Iterator["Follower"]:
    follower = Follower(Path(ranks.announced()["folder"]))
    with exit_on_signals():
        try:
            yield follower
        except run.Pruned as pruned:
            follower.note(**pruned.figures)
        except Exception as error:  # which the first process reports
            ranks.report(error, explain(error))


class Follower:
    """A run in another process than the first: it records nothing, and what the folder holds comes
    from the first one."""

    is_over = None

    def __init__(self, folder: Path):
        self.folder, self.result = folder, dict[str, Any]()

    def initialise(self, model: "nn.Module") -> None:
        """The first process may load weights, which `Machine.place` sends to the others."""

    def begin(self, state: "State") -> None:
        state.resume(self.folder / "last.pt")

    def note(self, **figures: Any) -> None:
        self.result |= figures

    def write_epoch(self, state: "State") -> None:
        """The first process writes it."""
