"""Logs: one line for each event, as JSON or as text, with the id of the request that caused it.

No value that a client sent is logged. An exception is logged as its type and its stack frames, without its text,
because drivers and validators quote values in theirs. Warnings and errors that say the same again within a minute are
counted, and one line says how many they were.
"""

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import structlog
from structlog.types import EventDict, Processor

from app.core.log_handler import STANDARD_ERROR, LogHandler
from app.core.log_settings import LogStyle

logger: structlog.stdlib.BoundLogger = structlog.get_logger("nanobanana")
"""With `every_time=True`, a warning or an error is written however often it is repeated: a state that has changed."""

current_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that the current task answers; None outside of requests."""

_current_fields: ContextVar[Mapping[str, str]] = ContextVar("fields", default=MappingProxyType({}))
_FRAMES_MAX = 30
_SILENT_LIBRARIES = ("python_multipart",)
_QUIET_LIBRARIES = ("uvicorn", "sqlalchemy", "alembic", "asyncio", "PIL", "httpx2", "httpcore2")


@contextmanager
def logging_with(**fields: str) -> Iterator[None]:
    """Inside the `with`, every line of this task, and of tasks that it creates, has these fields too."""
    token = _current_fields.set({**_current_fields.get(), **fields})
    try:
        yield
    finally:
        _current_fields.reset(token)


def configure_logging(level: str, *, style: LogStyle = "json", descriptor: int = STANDARD_ERROR) -> None:
    """Writes log lines of the program and of every library, from `level` up.

    Libraries whose lines below WARNING hold statements or rows, or are of no use, stay at WARNING at every level.
    Those whose every line quotes what a client sent write none.
    """
    shared: list[Processor] = [
        _add_context,
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
    handler = LogHandler(style, descriptor)
    final: list[Processor] = [formatting.remove_processors_meta, _describe_exception, _put_common_fields_first]
    handler.setFormatter(formatting(foreign_pre_chain=shared, processors=[*final, handler.render]))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    for library in _SILENT_LIBRARIES:
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)


def write_pending_lines() -> None:
    """Waits for a moment until the lines so far are written: for a process that a signal is about to end."""
    for handler in logging.root.handlers:
        if isinstance(handler, LogHandler):
            handler.drain()


def _add_context(_logger: object, _method: str, event: EventDict) -> EventDict:
    request_id = current_request_id.get()
    of_request = {} if request_id is None else {"request_id": request_id}
    return {**_current_fields.get(), **of_request, **event}


def _describe_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    exception = _exception_of(event.pop("exc_info", None))
    if exception is not None:
        stack = traceback.extract_tb(exception.__traceback__)[-_FRAMES_MAX:]
        kind = f"{type(exception).__module__}.{type(exception).__qualname__}"
        sqlstate = getattr(getattr(exception, "orig", exception), "sqlstate", None)
        frames = tuple(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack)
        event["exception"] = {"type": kind, "sqlstate": sqlstate, "frames": frames}
    return event


def _exception_of(exc_info: object) -> BaseException | None:
    if exc_info is True:
        return sys.exc_info()[1]
    exception = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    return exception if isinstance(exception, BaseException) else None


def _put_common_fields_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {**{name: event.pop(name, None) for name in ("timestamp", "level", "event")}, **event}
