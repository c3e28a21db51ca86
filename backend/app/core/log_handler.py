"""The handler that writes all log lines of a process, and counts those that repeat."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from structlog.types import EventDict

from app.core.log_lines import coloured_text_line, json_line, text_line, time_stamp
from app.core.log_repeats import Repeats
from app.core.log_settings import LogStyle
from app.core.log_stream import LogStream

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2

_COUNTED = {"warning", "error", "critical"}


class LogHandler(logging.StreamHandler[LogStream | TextIO]):
    """Writes lines to a descriptor of this process, and waits for its reader only in `close`, at the process's end."""

    terminator = ""  # the lines have their own

    def __init__(self, style: LogStyle, descriptor: int) -> None:
        is_open = (sys.stdout if descriptor == STANDARD_OUTPUT else sys.stderr) is not None
        # Where it was closed before the start, its number belongs to some file or socket of ours.
        descriptor = descriptor if is_open else os.open(os.devnull, os.O_WRONLY)
        self.style = style
        with_colours = os.isatty(descriptor) and "NO_COLOR" not in os.environ
        self._render = json_line if style == "json" else coloured_text_line if with_colours else text_line
        super().__init__(LogStream(descriptor, self._render))
        self._repeats = Repeats()
        self._sum_timer: threading.Timer | None = None
        self._pending: list[str] = []

    def render(self, _logger: object, _method: str, event: EventDict) -> str:
        """The line, as the last of structlog's processors; an empty text where it is counted instead of written."""
        every_time = event.pop("every_time", False)
        if event["level"] in _COUNTED and not every_time and not self._repeats.is_new(event):
            self._sum_up_later()
            return ""
        return self._render(event)

    def emit(self, record: logging.LogRecord) -> None:
        self._write_sums()
        super().emit(record)

    def write_soon(self, line: str) -> None:
        """Writes the line with all others of this turn of the event loop: one system call for many requests."""
        self._pending.append(line)
        if len(self._pending) == 1:
            asyncio.get_running_loop().call_soon(self._write_pending)

    def drain(self) -> None:
        """Writes the sums so far, and waits for a moment until all lines are written."""
        with self._locked():
            self._write_sums(all_of_them=True)
        if isinstance(self.stream, LogStream):
            self.stream.drain()

    def close(self) -> None:
        if self._sum_timer is not None:
            self._sum_timer.cancel()
        self.drain()
        if isinstance(self.stream, LogStream):
            self.stream.close()
        super().close()

    def _write_pending(self) -> None:
        lines, self._pending = self._pending, []
        with self._locked():
            self.stream.write("".join(lines))

    def _write_sums(self, *, all_of_them: bool = False) -> None:
        for event in self._repeats.take_due(all_of_them=all_of_them):
            self.stream.write(self._render({"timestamp": time_stamp(), **event}))

    def _sum_up_later(self) -> None:
        if self._sum_timer is None and (seconds := self._repeats.seconds_left) is not None:
            self._sum_timer = threading.Timer(seconds, self._sum_up)
            self._sum_timer.daemon = True
            self._sum_timer.start()

    def _sum_up(self) -> None:
        with self._locked():
            self._sum_timer = None
            self._write_sums()
            self._sum_up_later()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()
