"""Logs: one JSON object a line, on standard error, with the id of the request that caused it.

Nothing that a caller sent is logged. An exception is written as its type and the places it passed; its text is left
out, since a driver's or a validator's text quotes values.
"""

import logging
import logging.config
import traceback

import structlog
from structlog.types import EventDict, Processor

logger: structlog.stdlib.BoundLogger = structlog.get_logger("nanobanana")

_FRAMES_MAX = 30


def configure_logging(level: str) -> None:
    """Sends the program's own lines and every library's through the same JSON writer.

    SQLAlchemy stays at WARNING whatever the level: below it, it writes statements and rows.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        _exception_without_its_text,
                        _in_reading_order,
                        structlog.processors.JSONRenderer(),
                    ],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "uvicorn": {"level": "WARNING"},
                "sqlalchemy": {"level": "WARNING"},
                "alembic": {"level": "WARNING"},
                "asyncio": {"level": "WARNING"},
                "PIL": {"level": "WARNING"},
            },
        }
    )


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
