"""Logs: one JSON object a line, on standard error, with the id of the request that caused it.

No value that a client sent is logged. An exception is logged as its type and its stack frames, without its text,
because drivers and validators quote values in theirs; the same again within a minute is counted, without its stack.
"""

import asyncio
import logging
import os
import sys
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor

from app.core.log_repeats import Repeats
from app.core.log_stream import LogStream

logger: structlog.stdlib.BoundLogger = structlog.get_logger("nanobanana")

current_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that the current task answers; None outside of requests."""

_STANDARD_ERROR = 2
_FRAMES_MAX = 30
_QUIET_LIBRARIES = ("uvicorn", "sqlalchemy", "alembic", "asyncio", "PIL", "httpx2", "httpcore2")


class JSONLines(logging.StreamHandler[LogStream | TextIO]):
    """Writes lines to standard error, and waits for its reader only in `close`, at the exit of the process."""

    def __init__(self) -> None:
        # Where standard error was closed before the start, its number belongs to some file or socket of ours.
        super().__init__(LogStream(_STANDARD_ERROR if sys.stderr else os.open(os.devnull, os.O_WRONLY)))
        self._pending: list[str] = []

    def write_soon(self, line: str) -> None:
        """Writes the line with all others of this turn of the event loop: one system call for many requests."""
        self._pending.append(line)
        if len(self._pending) == 1:
            asyncio.get_running_loop().call_soon(self._write_pending)

    def _write_pending(self) -> None:
        lines, self._pending = self._pending, []
        self.acquire()
        try:
            self.stream.write("".join(lines))
        finally:
            self.release()

    def drain(self) -> None:
        """Waits for a moment until the lines so far are written."""
        if isinstance(self.stream, LogStream):
            self.stream.drain()

    def close(self) -> None:
        if isinstance(self.stream, LogStream):
            self.stream.close()
        super().close()


def configure_logging(level: str) -> None:
    """Writes log lines of the program and of every library as JSON, from `level` up.

    Libraries whose lines below WARNING hold statements or rows, or are of no use, stay at WARNING at every level.
    """
    shared: list[Processor] = [
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatting = structlog.stdlib.ProcessorFormatter
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, formatting.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    final: list[Processor] = [
        formatting.remove_processors_meta,
        partial(_describe_exception, Repeats()),
        _put_common_fields_first,
    ]
    handler = JSONLines()
    handler.setFormatter(formatting(foreign_pre_chain=shared, processors=[*final, structlog.processors.JSONRenderer()]))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)


def write_pending_lines() -> None:
    """Waits for a moment until the lines so far are written: for a process that a signal is about to end."""
    for handler in logging.root.handlers:
        if isinstance(handler, JSONLines):
            handler.drain()


def log_request(
    request_id: str, *, method: str, route: str, status: int, seconds: float, model: str | None = None
) -> None:
    """Logs one answered request, and the model that drew for it, if one did. structlog would be slower, and no value
    here needs escaping.
    """
    if not logging.root.isEnabledFor(logging.INFO):
        return
    of_model = f'"model": "{model}", ' if model else ""
    line = (
        f'{{"timestamp": "{_now()}", "level": "info", "event": "request", "logger": "nanobanana", '
        f'"method": "{method}", "route": "{route}", "status": {status}, '
        f'"ms": {seconds * 1000:.2f}, {of_model}"request_id": "{request_id}"}}\n'
    )
    for handler in logging.root.handlers:
        if isinstance(handler, JSONLines):
            handler.write_soon(line)


def _now() -> str:
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_to_the_second(seconds)}.{microseconds:06}Z"


@lru_cache(maxsize=1)  # all lines of one second have the same
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _add_request_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    request_id = current_request_id.get()
    return event if request_id is None else {**event, "request_id": request_id}


def _describe_exception(repeats: Repeats, _logger: object, _method: str, event: EventDict) -> EventDict:
    exception = _exception_of(event.pop("exc_info", None))
    if exception is not None:
        stack = traceback.extract_tb(exception.__traceback__)[-_FRAMES_MAX:]
        kind = f"{type(exception).__module__}.{type(exception).__qualname__}"
        sqlstate = getattr(getattr(exception, "orig", exception), "sqlstate", None)
        frames = tuple(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack)
        repeated = repeats.count((event["event"], kind, sqlstate, frames[-1:]))
        event["exception"] = {"type": kind, "sqlstate": sqlstate, "repeated": repeated}
        if not repeated:
            event["exception"]["frames"] = frames
    return event


def _exception_of(exc_info: object) -> BaseException | None:
    if exc_info is True:
        return sys.exc_info()[1]
    exception = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    return exception if isinstance(exception, BaseException) else None


def _put_common_fields_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {**{name: event.pop(name, None) for name in ("timestamp", "level", "event")}, **event}
