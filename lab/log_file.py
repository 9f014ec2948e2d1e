"""The log file of a run."""

import logging
from typing import TextIO

from lab import files
from lab.errors import Refusal


class LogFile(logging.FileHandler):
    """Appends to a regular file, never through a link. A file that cannot be opened, on a full disk
    for instance, costs the messages, not the run."""

    def _open(self) -> TextIO:
        return open(
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=files.regular,
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # from _open; errors of writing are handled already
            self.handleError(record)
        except Refusal:  # of a link, for instance; the run refuses its folder by itself
            return
