"""TensorBoard: event files in the run folder, which `tensorboard --logdir runs` shows."""

import logging
import time
from typing import TYPE_CHECKING

from lab.extras import require
from lab.trackers import Description

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

# A run that was pruned has ended as it should; TensorBoard has no word for one that was stopped.
STATUSES = {"finished": "SUCCESS", "pruned": "SUCCESS", "failed": "FAILURE"}


class TensorBoard:
    """Each part of a run has an event file of its own. It begins with the step from which the
    reader drops what earlier files have."""

    def __init__(self) -> None:
        require("tensorboard", "logger=tensorboard")

    def start(self, run: Description) -> int:
        from tensorboard.plugins.hparams import summary_v2
        from torch.utils.tensorboard import SummaryWriter

        is_resumed = any(run.folder.glob("events.out.tfevents.*"))
        # The last epoch is written again, since its step may have figures of the whole run, too.
        last = max(0, min(run.epoch, _last_step(run)) - 1) if is_resumed else 0
        purged = last + 1 if is_resumed else None
        self.writer = SummaryWriter(str(run.folder), purge_step=purged, max_queue=1000)
        if not is_resumed:
            hparams = summary_v2.hparams_pb(run.config, trial_id=run.id)
            self.writer.file_writer.add_summary(hparams)
        self.writer.flush()
        return last

    def log(self, figures: dict[str, float], epoch: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def end(self, figures: dict[str, float], epoch: int, status: str, reason: str | None) -> None:
        self.log(figures, epoch)
        self.writer.file_writer.add_summary(_ended(STATUSES.get(status, "UNKNOWN")))
        if reason:
            self.writer.add_text("reason", reason, epoch)
        self.writer.close()


def _ended(word: str) -> "Summary":
    """What ends a session for TensorBoard, whose own function for it needs TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.Status.Value(f"STATUS_{word}")
    ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    content = plugin_data_pb2.HParamsPluginData(session_end_info=ended)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


def _last_step(run: Description) -> int:
    """The last epoch in the event files of the run, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # else it lists the files it read
    events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0}).Reload()
    if "val/accuracy" not in events.Tags()["scalars"]:
        return 0
    return max(event.step for event in events.Scalars("val/accuracy"))
