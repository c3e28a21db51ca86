"""Logs: one JSON object a line, on standard error, with the id of the request that caused it.

Nothing that a caller sent is logged. An exception is written as its type and the places it passed; its text is left
out, since a driver's or a validator's text quotes values.
"""

import asyncio
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor

logger: structlog.stdlib.BoundLogger = structlog.get_logger("nanobanana")

current_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered."""

_FRAMES_MAX = 30
_QUIET_LIBRARIES = ("uvicorn", "sqlalchemy", "alembic", "asyncio", "PIL", "httpx2", "httpcore2")


class JSONLines(logging.StreamHandler[TextIO]):
    """Where the lines go: standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[str] = []

    def write_soon(self, line: str) -> None:
        """Writes a line with all others of this turn of the event loop: one system call for many requests."""
        self._waiting.append(line)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._write_waiting)

    def _write_waiting(self) -> None:
        lines, self._waiting = self._waiting, []
        self.stream.write("".join(lines))
        self.flush()


def configure_logging(level: str) -> None:
    """Sends the program's own lines and every library's through the same JSON writer.

    Libraries whose lines below WARNING hold statements, rows or noise stay at WARNING whatever the level.
    """
    shared: list[Processor] = [
        _with_request_id,
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
    last = [formatting.remove_processors_meta, _exception_without_its_text, _in_reading_order]
    handler = JSONLines()
    handler.setFormatter(formatting(foreign_pre_chain=shared, processors=[*last, structlog.processors.JSONRenderer()]))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)


def log_request(request_id: str, *, method: str, route: str, status: int, seconds: float) -> None:
    """The line about one answered request. Written by hand: there is one for each, and nothing in it needs quoting."""
    if not logging.root.isEnabledFor(logging.INFO):
        return
    now = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    line = (
        f'{{"timestamp": "{now}Z", "level": "info", "event": "request", "logger": "nanobanana", "method": "{method}", '
        f'"route": "{route}", "status": {status}, "ms": {seconds * 1000:.2f}, "request_id": "{request_id}"}}\n'
    )
    for handler in logging.root.handlers:
        if isinstance(handler, JSONLines):
            handler.write_soon(line)


def _with_request_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    request_id = current_request_id.get()
    return event if request_id is None else {**event, "request_id": request_id}


def _exception_without_its_text(_logger: object, _method: str, event: EventDict) -> EventDict:
    exception = _raised(event.pop("exc_info", None))
    if exception is not None:
        frames = traceback.extract_tb(exception.__traceback__)[-_FRAMES_MAX:]
        event["exception"] = {
            "type": f"{type(exception).__module__}.{type(exception).__qualname__}",
            "sqlstate": getattr(getattr(exception, "orig", exception), "sqlstate", None),
            "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        }
    return event


def _raised(exc_info: object) -> BaseException | None:
    raised = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    return raised if isinstance(raised, BaseException) else None


def _in_reading_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {**{name: event.pop(name, None) for name in ("timestamp", "level", "event")}, **event}
