"""A run from its start to its end: which folder it has, what is recorded, how it ended."""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lab import changes, command_line, files, origin, record, resume, schema, verdict
from lab.build import KINDS, blame
from lab.cause import part_of, place, root
from lab.errors import HINT, PeerFailed, Refusal, RunFailed, explain
from lab.origin import GROUPS
from lab.provenance import PROJECT
from lab.signals import exit_on_signals, is_of_signal
from lab.trackers import Trackers

if TYPE_CHECKING:
    from torch import nn

    from lab.state import State

log = logging.getLogger(__name__)


class Pruned(Exception):
    """Ends a trial that a search has given up; `figures` are what it reached."""

    def __init__(self, epoch: int, figures: dict[str, Any]):
        super().__init__(f"pruned after epoch {epoch}")
        self.figures = figures


@contextmanager
def open_run(cfg: DictConfig) -> Iterator["Run"]:
    """The run of the job that Hydra has started. How it ends is always recorded.

    Raises RunFolderError if another process runs in the folder or the folder is damaged. Raises
    RunFailed for a bad config and for any exception within the context, after it was reported.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    files.check_job_folder(folder)
    record.check_own_files(folder)
    with exit_on_signals(), record.locked(folder):
        run = Run(cfg, folder)
        if run.is_over:
            print(run.is_over)
            yield run
            return
        try:
            if not run.is_resumed:  # otherwise, `_earlier_part` has checked it
                schema.check(cfg)
            schema.check_free(cfg)
            run.start()
            yield run
        except Pruned as pruned:
            run.note(**pruned.figures, reason=str(pruned))
            run.end("pruned")
        except Exception as error:
            run.fail(error)
        except BaseException as end:
            if isinstance(end, SystemExit) and not is_of_signal(end):  # by the user's code
                called = f"exit({end.code!r}) was called ({place(end) or 'in a library'})"
                run.fail(Refusal(f"{called}: raise an exception where a run cannot go on."))
            run.end("interrupted")
            if HydraConfig.get().mode != RunMode.MULTIRUN:  # a sweeper resumes its own jobs
                print(f"Resume with: {resume.command(folder, cfg)}", flush=True)
            raise
        else:
            run.end("finished")


class Run:
    """The record of a run: `result` is the content of `result.json`.

    A run that is resumed does not change its folder until `begin`, where nothing can be refused any
    more: an override that does not work leaves the folder as it was.
    """

    def __init__(self, cfg: DictConfig, folder: Path):
        self.cfg, self.folder = cfg, folder
        self.opened = time.perf_counter()
        self.before = self._earlier_part()
        self.result = self.before
        self.is_resumed = bool(self.before)
        self.is_recording = not self.is_resumed
        self.state: State | None = None  # from `begin` on
        self.trackers = Trackers(cfg, folder)
        self.is_over = self._is_over()
        if not self.is_over:
            self.result = origin.described(cfg, self.before)

    def _earlier_part(self) -> dict[str, Any]:
        """The result of the run in the folder; empty for a new run. Its config is only compared."""
        if not (self.folder / "config.yaml").exists():
            return {}
        schema.check(self.cfg)
        record.check_entries(self.folder)
        by_resume = HydraConfig.get().job.config_name == command_line.RESUMED
        resume.check_config(self.folder, self.cfg, by_resume)
        return record.read_result(self.folder)

    def _is_over(self) -> str | None:
        """The reason why nothing is left to do, as a sentence to print, if that is so."""
        status, epochs = self.result.get("status"), self.result.get("epochs", 0)
        if status == "finished" and epochs >= self.cfg.epochs:
            return f"{self.folder} is finished after epoch {epochs}: epochs=N continues it."
        if status == "pruned" and self.cfg.trial is not None:
            return f"{self.folder} was pruned after {epochs} epochs: trial=null continues it."
        return None

    def start(self) -> None:
        """Record that a new run has started, and say so. Raises ConfigError for a tracker that is
        not there."""
        self.trackers.build()
        if self.is_recording:
            self._write("running")
            self._say_what_and_where()

    def initialise(self, model: "nn.Module") -> None:
        """Load the weights that `init_from` names, if it does and `begin` will not load others."""
        if self.cfg.init_from and not (self.folder / "last.pt").exists():
            from lab import initial  # not at the top: it imports torch

            self.note(init_from=initial.load(model, self.cfg))

    def begin(self, state: "State") -> None:
        """Load the last checkpoint, if there is one. From here on, nothing is refused any more."""
        self.state = state
        self.note(parameters=sum(weights.numel() for weights in state.model.parameters()))
        if self.is_resumed:
            resume.check_data(self.folder, self.before, self.result)
            resume.check_has_checkpoint(self.folder)
        state.resume(self.folder / "last.pt")
        changed = self.is_resumed and changes.are_other(self.folder, self.before)
        self.note(startup_seconds=round(time.perf_counter() - self.opened, 3))
        self.is_recording = True
        self.note(**self.trackers.identified(self.result))
        self._write("running")
        if self.is_resumed:
            self._say_what_and_where()
        machine = [self.result[key] for key in ("parameters", "device", "precision", "threads")]
        log.info("%d parameters, %s, %s, threads: %d", *machine)
        if state.epoch or state.losses:
            state.save_best(self.folder / "best.pt")  # best.pt may be newer than last.pt
            log.info("resumed after epoch %d, step %d", state.epoch, len(state.losses))
        if different := self.is_resumed and resume.differences(self.before, self.result, changed):
            log.info(
                "the results will not be equal to the last bit, since the earlier part differs: %s",
                different,
            )
        self.trackers.start(self.result, state.history)
        if self.cfg.profile:
            from lab import profile  # not at the top: it imports torch

            profile.attach(state, self.cfg.profile, self.folder)

    def note(self, **figures: Any) -> None:
        """Add figures to the result; they are written when the run ends."""
        self.result |= figures

    def write_epoch(self, state: "State") -> None:
        """Write the figures of the epoch that ended and, if it is the best one, the weights."""
        row = state.history[-1]
        if state.best is row:
            state.save_best(self.folder / "best.pt")
        rows = [list(row), *(list(row.values()) for row in state.history)]
        files.write_csv(self.folder / "metrics.csv", rows)
        log.info(
            f"epoch {row['epoch']}/{len(state.steps)}  train loss {row['train_loss']:.3f}  "
            f"val loss {row['val_loss']:.3f}  val accuracy {row['val_accuracy']:.2%}  "
            f"{row['seconds']:.1f} s"
        )
        self.trackers.log(state.history)

    def fail(self, error: Exception) -> Never:
        """Report and record why the run failed. Raises RunFailed."""
        sentence = self._blamed(error) or explain(error)
        reason = sentence or f"{type(error).__name__}: {error}"
        if self.is_recording:
            log.error("%s failed: %s", self._what(), reason, exc_info=None if sentence else error)
        else:
            print(sentence or traceback.format_exc(), file=sys.stderr)
        cause = root(error.__cause__ or error)
        if sentence and place(cause) and not isinstance(cause, Refusal | FloatingPointError):
            print(HINT, file=sys.stderr)
        self.note(reason=reason)
        # A full disk or a process that was killed says nothing about the config: resume the run.
        passes = files.is_disk_full(error) or isinstance(error, PeerFailed)
        self.end("interrupted" if passes else "failed")
        raise RunFailed(reason) from error

    def _blamed(self, error: Exception) -> str | None:
        """The sentence for what the model, the optimizer or the scheduler raised while it ran."""
        if self.state is None:
            return None
        parts = {group: getattr(self.state, group) for group in KINDS}
        group = part_of(root(error), parts)
        cfg = OmegaConf.merge(self.cfg, {"total_steps": sum(self.state.steps)})
        return blame(cfg[group], group, error) if group else None

    def end(self, status: str) -> None:
        """Record how the run ended, unless it was resumed and refused: then it stays as it was."""
        if not self.is_recording:
            return
        self._write(status)
        if self.state:
            self.trackers.end(self.result, self.state.history)
        if "test_accuracy" in self.result and status == "finished":
            log.info(verdict.sentence(self.result, self.cfg, self.state))
        if status != "failed":
            log.info("%s: %s", status, record.shown(self.folder))

    def _write(self, status: str) -> None:
        self.note(status=status)
        if status == "running":
            for place in (self.folder, self.folder / ".hydra"):  # of a part that was killed
                files.discard_abandoned(place, seconds=0)
            part = 1 + len(self.result.get("earlier", []))
            self.note(changes=changes.write(self.folder, self.before, part))
        files.write_json(self.folder / "result.json", self.result)
        path = self.folder / "config.yaml"
        if status == "running" and (self.is_resumed or not path.exists()):
            record.write_config(path, self.cfg)

    def _what(self) -> str:
        model, dataset, optimizer = (self.result.get(name, "?") for name in GROUPS)
        return f"{model} on {dataset} with {optimizer}"

    def _say_what_and_where(self) -> None:
        log.info("%s → %s", self._what(), record.shown(self.folder))
        tuned = f"config/tuned/{HydraConfig.get().runtime.choices.get('tuned')}.yaml"
        if (PROJECT / tuned).exists():  # it may replace what --help shows
            log.info("settings for this dataset: %s", tuned)
