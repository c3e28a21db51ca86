"""The lines of requests: by hand, because structlog would be slower, and no value in them needs escaping."""

import logging
from functools import lru_cache

from app.core.log_handler import LogHandler
from app.core.log_lines import time_of_day, time_stamp

NAMES = ("level", "method", "route", "account", "key", "model", "client", "code", "limit")
"""Of `Named`: the line's level, `info` or `debug`; method and route; account and key; the model that drew; the client's
address; the code of the error that was answered; the limits that refused.
"""
Named = tuple[str, str, str, str | None, str | None, str | None, str | None, str | None, str | None]
"""What the lines of many requests have in common. What is None is left out."""


def log_request(request_id: str, named: Named, status: int, seconds: float) -> None:
    """Logs one answered request."""
    if logging.root.level > (logging.INFO if named[0] == "info" else logging.DEBUG):
        return
    for handler in logging.root.handlers:
        if isinstance(handler, LogHandler):
            now, ms = time_stamp(), seconds * 1000
            if handler.style == "json":
                more = f'"status": {status}, "ms": {ms:.2f}, "request_id": "{request_id}"'
                line = f'{{"timestamp": "{now}", {_as_json(named)}, {more}}}\n'
            else:
                line = f"{time_of_day(now)} {_as_text(named)} status={status} ms={ms:.2f} request_id={request_id}\n"
            handler.write_soon(line)


@lru_cache(maxsize=1000)  # the same callers call again and again
def _as_json(named: Named) -> str:
    fields = {"level": named[0], "event": "request", "logger": "nanobanana", **dict(zip(NAMES, named, strict=True))}
    return ", ".join([f'"{name}": "{value}"' for name, value in fields.items() if value])


@lru_cache(maxsize=1000)
def _as_text(named: Named) -> str:
    level, method, route, *_ = named
    fields = zip(NAMES[3:], named[3:], strict=True)
    return " ".join([f"{level:8} request {method} {route}", *(f"{name}={value}" for name, value in fields if value)])
