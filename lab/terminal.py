"""Standard output and standard error that no command depends on.

A reader may be gone (`| head -1`), the streams closed (`>&-`), the disk full (`> /dev/full`), or
the encoding unable to write an arrow (`PYTHONIOENCODING=ascii`). A run has better things to do than
to fail for that: what it records is in its folder.
"""

import errno
import io
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

# Besides control characters: what changes the direction of text, breaks lines, or is half of one.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: object, keep: str = "\n\t") -> str:
    r"""The text with control characters as escape sequences, like \x1b, except those in `keep`."""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in HIDDEN else _code(char)
        for char in text
    )


def _code(char: str) -> str:
    return char.encode("unicode_escape", errors="surrogatepass").decode()


class Visible(logging.Formatter):
    """Formats the messages of a log file, which may be watched in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


@contextmanager
def unbreakable_output() -> Iterator[None]:
    """Within the context, writing to sys.stdout, sys.stderr and log files raises nothing.

    A character that the encoding does not have, or that controls a terminal, is written as its
    escape sequence: names and reasons may come from somebody else's run folder. Once a stream
    cannot be written to, the rest of it is discarded, also that of child processes.
    """
    _open_closed_streams()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = after = _unbreakable(sys.stdout, 1), _unbreakable(sys.stderr, 2)
    handle_error = logging.Handler.handleError
    logging.Handler.handleError = _once(handle_error)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        logging.Handler.handleError = handle_error
        for stream in after:
            if isinstance(stream, _Stream):
                stream.end()


def _once(handle_error: Callable[..., None]) -> Callable[..., None]:
    """logging's own method prints a traceback for every message that cannot be written. A full
    disk is reported once for each log file, in one line; a bug is reported as before."""
    told: set[int] = set()

    def handle(handler: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            handle_error(handler, record)
        elif id(handler) not in told:
            told.add(id(handler))
            name = getattr(handler, "baseFilename", "The log")
            reason = error.strerror or error
            print(f"{name} cannot be written to ({reason}): it is incomplete.", file=sys.stderr)

    return handle


def _open_closed_streams() -> None:
    """Point descriptors 0 to 2 that are closed to the null device: the next file that is opened
    would become the standard output of C libraries and of child processes."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)


def _unbreakable(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # it was closed when Python started
        return _Stream(_Descriptor(descriptor), encoding="utf-8")
    if os.name == "nt" and stream.isatty():  # a console takes text, not bytes in an encoding
        stream.reconfigure(errors="backslashreplace")
        return stream
    try:
        stream.flush()
        return _Stream(_Descriptor(stream.fileno()), encoding=stream.encoding)
    except (OSError, ValueError):  # it has no descriptor, as in a notebook, and cannot break
        return stream


class _Descriptor(io.FileIO):
    """A file descriptor that becomes the null device when it cannot be written to."""

    is_over = False

    def __init__(self, descriptor: int):
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: Any) -> int:
        if self.is_over:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            is_told = self is not getattr(sys.stderr, "descriptor", self)
            if is_told and error.errno not in (errno.EPIPE, errno.EBADF, errno.EINVAL):
                print(
                    f"Standard output cannot be written to ({error.strerror}): the rest of it is "
                    "discarded.",
                    file=sys.stderr,
                )
            return len(data)


class _Stream(io.TextIOWrapper):
    def __init__(self, descriptor: _Descriptor, encoding: str):
        self.descriptor = descriptor
        super().__init__(
            io.BufferedWriter(descriptor), encoding, errors="backslashreplace", line_buffering=True
        )

    def write(self, text: str) -> int:
        """Only a library, like a progress bar, may control the terminal."""
        parts = Path(sys._getframe(1).f_code.co_filename).parts
        is_library = "site-packages" in parts or "dist-packages" in parts
        super().write(text if is_library else visible(text))
        return len(text)

    def end(self) -> None:
        """Discard what is written from now on: log handlers outlive the context, and later the
        descriptor may be another file's."""
        self.flush()
        self.descriptor.is_over = True
