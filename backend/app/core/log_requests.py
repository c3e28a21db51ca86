"""The lines of requests: by hand, because structlog would be slower, and no value in them needs escaping."""

import logging
from typing import NamedTuple

from app.core.log_handler import LogHandler
from app.core.log_lines import time_of_day, time_stamp


class RequestLine(NamedTuple):
    """What is logged of an answered request. What is not known is None, and left out."""

    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    account: str | None = None
    key: str | None = None
    model: str | None = None
    """The model that drew."""
    client: str | None = None
    """The client's address."""
    code: str | None = None
    """The code of the error that it was answered with."""
    limit: str | None = None
    """The limits that refused it."""


def log_request(line: RequestLine, *, is_probe: bool = False) -> None:
    """Logs one answered request, at INFO, or at DEBUG as one of a probe."""
    if not logging.root.isEnabledFor(logging.DEBUG if is_probe else logging.INFO):
        return
    level = "debug" if is_probe else "info"
    for handler in logging.root.handlers:
        if isinstance(handler, LogHandler):
            handler.write_soon((_as_json if handler.style == "json" else _as_text)(level, line))


def _as_json(level: str, line: RequestLine) -> str:
    request_id, method, route, status, seconds, account, key, model, client, code, limit = line
    of_account = f'"account": "{account}", ' if account else ""
    of_key = f'"key": "{key}", ' if key else ""
    of_model = f'"model": "{model}", ' if model else ""
    of_client = f'"client": "{client}", ' if client else ""
    of_error = f'"code": "{code}", ' if code else ""
    of_limit = f'"limit": "{limit}", ' if limit else ""
    return (
        f'{{"timestamp": "{time_stamp()}", "level": "{level}", "event": "request", "logger": "nanobanana", '
        f'"method": "{method}", "route": "{route}", "status": {status}, "ms": {seconds * 1000:.2f}, '
        f'{of_account}{of_key}{of_model}{of_client}{of_error}{of_limit}"request_id": "{request_id}"}}\n'
    )


def _as_text(level: str, line: RequestLine) -> str:
    request_id, method, route, status, seconds, account, key, model, client, code, limit = line
    of_account = f" account={account}" if account else ""
    of_key = f" key={key}" if key else ""
    of_model = f" model={model}" if model else ""
    of_client = f" client={client}" if client else ""
    of_error = f" code={code}" if code else ""
    of_limit = f" limit={limit}" if limit else ""
    return (
        f"{time_of_day(time_stamp())} {level:8} request {method} {route} {status} {seconds * 1000:.2f} ms"
        f"{of_account}{of_key}{of_model}{of_client}{of_error}{of_limit} request_id={request_id}\n"
    )
