"""A stream for log lines that nobody has to read: what cannot be written is dropped, and counted."""

import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import RLock, Thread

from app.core.log_lines import json_line, time_stamp

PENDING_BYTES_MAX = 1024 * 1024
"""Text that may wait to be written, of one process."""

_DRAIN_SECONDS = 1.0
_REPORT_SECONDS = 1.0
_WHOLE_BYTES = 4096  # PIPE_BUF of Linux: what several workers write to one pipe in such pieces is not mixed

_counters: list[Callable[[int], object]] = []


@contextmanager
def dropped_lines_counted(count: Callable[[int], object]) -> Iterator[None]:
    """Inside the `with`, `count` is called with the number of lines whenever some are dropped."""
    _counters.append(count)
    try:
        yield
    finally:
        _counters.remove(count)


class LogStream:
    """Writes text to a descriptor; `write` never waits for its reader.

    What cannot be written without waiting is written by a thread. Beyond PENDING_BYTES_MAX, lines are dropped. Once
    lines can be written again, a line `log_lines_dropped` says how many were. `write` is called by one thread at a
    time.
    """

    def __init__(self, descriptor: int, render: Callable[[Mapping[str, object]], str] = json_line) -> None:
        """`render` makes a line of the fields of `log_lines_dropped`."""
        self._descriptor = descriptor
        self._render = render
        self._without_waiting = _open_without_waiting(descriptor)
        self._texts: SimpleQueue[bytes] = SimpleQueue()
        self._thread: Thread | None = None
        self._accepted_bytes = self._written_bytes = 0  # one changes where `write` is called, the other in the thread
        self._dropped_lines = self._reported_lines = 0
        self._dropping = RLock()  # a signal's handler may log
        self._reported_at = 0.0

    def write(self, text: str) -> int:
        content = text.encode(errors="backslashreplace")
        if self._written_bytes == self._accepted_bytes:
            content = self._write_without_waiting(content)
            if not content:
                return len(text)
        if self._accepted_bytes - self._written_bytes + len(content) > PENDING_BYTES_MAX:
            self._drop(content.count(b"\n"))
            return len(text)
        if self._thread is None:
            self._thread = Thread(target=self._write_all, name="write-log", daemon=True)
            self._thread.start()
        self._accepted_bytes += len(content)
        self._texts.put(content)
        return len(text)

    def drain(self) -> None:
        """Returns once all is written, or after _DRAIN_SECONDS."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._written_bytes != self._accepted_bytes and time.monotonic() < deadline:
            time.sleep(0.005)

    def close(self) -> None:
        """Waits as `drain` does. What is written afterwards is written by the thread."""
        self.drain()
        if self._without_waiting is not None:
            os.close(self._without_waiting)
            self._without_waiting = None

    def _write_without_waiting(self, content: bytes) -> bytes:
        """Writes as much as is taken at once, and returns the rest. A thread would cost the event loop more."""
        if self._without_waiting is None:
            return content
        written = 0
        with suppress(OSError):
            for part in _in_whole_lines(content):
                taken = os.write(self._without_waiting, part)
                written += taken
                if taken < len(part):
                    break
        return content[written:]

    def _drop(self, lines: int) -> None:
        with self._dropping:
            self._dropped_lines += lines
            for count in _counters:
                count(lines)

    def _write_all(self) -> None:
        while True:
            content = self._texts.get()
            for part in _in_whole_lines(content):
                if not self._write_now(part):
                    self._drop(part.count(b"\n"))
            self._report_dropped()
            self._written_bytes += len(content)

    def _report_dropped(self) -> None:
        lines = self._dropped_lines - self._reported_lines
        is_due = self._texts.empty() or time.monotonic() > self._reported_at + _REPORT_SECONDS
        if lines and is_due and self._write_now(self._report(lines)):
            self._reported_lines += lines
            self._reported_at = time.monotonic()

    def _report(self, lines: int) -> bytes:
        event = {"level": "warning", "event": "log_lines_dropped", "logger": "nanobanana", "lines": lines}
        return self._render({"timestamp": time_stamp(), **event}).encode()

    def _write_now(self, content: bytes) -> bool:
        """Whether it could be written: not if whoever read it is gone, or the disk is full."""
        rest = memoryview(content)
        with suppress(OSError):
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # another process that has this descriptor too has made it so
                    select.select((), (self._descriptor,), ())
            return True
        return False


def _open_without_waiting(descriptor: int) -> int | None:
    """The same pipe, terminal or device, opened a second time: the first one's other owners still wait for its reader.

    None for anything else, such as a file: a second opening of it has a position of its own.
    """
    kind = os.fstat(descriptor).st_mode
    if sys.platform == "linux" and (stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)):
        with suppress(OSError):  # it may belong to another user
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return None


def _in_whole_lines(content: bytes) -> Iterator[bytes]:
    """The content in pieces of at most _WHOLE_BYTES, none of which ends within a line, unless a line is longer."""
    start = 0
    while start < len(content):
        end = content.rfind(b"\n", start, start + _WHOLE_BYTES) + 1 or content.find(b"\n", start) + 1 or len(content)
        yield content[start:end]
        start = end
