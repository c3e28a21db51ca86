"""The answer to a request for which there is no room, as bytes: most are needed when there is least time for them."""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from fastapi import Request

from app.core.errors import Overloaded, document
from app.core.security import new_id
from app.core.web.middleware import with_common_headers

Headers = Iterable[tuple[bytes, bytes]]


def overloaded(*, retry_after_seconds: int, server_headers: Headers, without_body: bool, close: bool) -> bytes:
    """All of the answer: the same document and headers as any other problem has, with a request id of its own.

    `server_headers` are those that the server puts first on every answer.
    """
    request_id = new_id("req").encode()
    prepared = _prepared(retry_after_seconds)
    return b"".join(
        [
            b"HTTP/1.1 503 Service Unavailable\r\n",
            _lines(server_headers),
            prepared.headers.replace(_ANY_ID, request_id),
            b"connection: close\r\n\r\n" if close else b"\r\n",
            b"" if without_body else prepared.body.replace(_ANY_ID, request_id),
        ]
    )


class _Prepared(NamedTuple):
    headers: bytes
    body: bytes


@cache
def _prepared(retry_after_seconds: int) -> _Prepared:
    """What the application itself would have answered, with an id that is still to be put in."""
    state = {"request_id": _ANY_ID.decode(), "answer_headers": {}}
    error = Overloaded(retry_after_seconds=retry_after_seconds)
    answer = document(Request({"type": "http", "state": state}), error)
    return _Prepared(_lines(with_common_headers(answer.raw_headers, state)), bytes(answer.body))


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


_ANY_ID = new_id("req").encode()
