"""Run the experiment from Python: in a notebook, in a test, in a program with its own Hydra."""

import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig, OmegaConf

from lab import command_line, provenance, record
from lab.errors import ConfigError, Refusal, RunFailed, explain
from lab.launch import refuse_several
from lab.log_file import LogFile
from lab.terminal import Visible, visible


def run(
    task: Callable[[DictConfig], Any], overrides: Iterable[str], folder: str | Path | None = None
) -> dict[str, Any]:
    """Run `task`, the function that `hydra.main` decorates, as its command with `overrides` would.

    Returns `result.json`, and the run folder as "folder": `folder`, or the one that the config
    names. Raises ConfigError for a config that cannot be composed, RunFailed for a run that failed,
    after its reason was recorded, and KeyboardInterrupt for one that was interrupted and saved.
    """
    folders: list[Path] = []

    def recorded(cfg: DictConfig) -> None:
        folders.append(Path(HydraConfig.get().runtime.output_dir))
        with _log_file():
            task(cfg)

    refuse_several("script.train")
    if other := [word for word in overrides if not isinstance(word, str)]:
        raise ConfigError(
            f"{other[0]!r} is not an override: give strings, as in train('model=cnn', 'seed=1')."
        )
    with _own_hydra():
        try:
            config_name, words = command_line.for_python(list(overrides), folder)
            path = create_config_search_path(str(provenance.PROJECT / "config"))
            hydra = Hydra.create_main_hydra2("script", path)
            hydra.run(config_name, recorded, words, with_log_configuration=False)
        except SystemExit as end:  # of a signal or of a callback
            if end.code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from None
            if isinstance(end.code, str):
                raise Refusal(end.code) from None
            raise
        except (Refusal, RunFailed):
            raise
        except Exception as error:
            if sentence := explain(error):
                raise ConfigError(sentence) from error
            raise
    return record.read_result(folders[0]) | {"folder": folders[0]}


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra for one run. What the process has set in Hydra is restored."""
    instances = Singleton._instances.copy()
    for kind in (GlobalHydra, HydraConfig, JobRuntime, version.VersionBase):
        Singleton._instances.pop(kind, None)
    version.setbase("1.3")
    try:
        yield
    finally:
        Singleton._instances.clear()
        Singleton._instances.update(instances)


@contextmanager
def _log_file() -> Iterator[None]:
    """Log to the file that the job's config names, and else leave logging as the process set it.

    On the terminal, a program that has configured logging sees what its root logger lets through;
    one that has not sees the messages, as those of a command.
    """
    settings = HydraConfig.get().job_logging
    handlers: list[logging.Handler] = [_Terminal()]
    if filename := OmegaConf.select(settings, "handlers.file.filename"):
        file = LogFile(filename, delay=True, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(Visible(settings.formatters.dated.format))
        handlers.append(file)
    names = [path.stem for path in provenance.PROJECT.glob("*.py")] + ["lab", "sweeps"]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate, logger.handlers = False, [*logger.handlers, *handlers]
    try:
        yield
    finally:
        for logger, (level, propagate, own) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, own
        for handler in handlers:
            handler.close()


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        if not root.handlers:
            print(visible(record.getMessage()), flush=True)
        elif record.levelno >= root.level:
            root.handle(record)
