"""The answers that the server gives by itself, as bytes: to requests for which there is no room, and to what cannot be
read. Most are needed when there is least time for them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastapi import FastAPI, Request
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.core.errors import ApiError, ErrorAnswer, ErrorAnswers, InvalidRequest, Overloaded, answer_as_problem
from app.core.security import new_id
from app.web.middleware import with_common_headers
from app.web.overload import RETRY_SECONDS_MAX

Headers = Iterable[tuple[bytes, bytes]]


class _Prepared(NamedTuple):
    headers: bytes
    body: bytes


class Refusals:
    """What the application itself would answer: for each path in its own way, with a request id of its own."""

    def __init__(
        self, overloaded: Sequence[tuple[re.Pattern[str], Sequence[_Prepared]]], unreadable: _Prepared
    ) -> None:
        """`overloaded` by path, the last for any: what is told, by the seconds until the caller may come again."""
        self._overloaded = overloaded
        self._unreadable = unreadable

    @classmethod
    async def prepare(cls, app: FastAPI) -> "Refusals":
        """Has the application answer each once, with an id that is still to be put in."""
        answers: ErrorAnswers = app.state.error_answers
        every_second = [Overloaded(retry_after_seconds=seconds) for seconds in range(1, RETRY_SECONDS_MAX + 1)]
        ways = [*answers, (_ANY_PATH, answer_as_problem)]
        overloaded = [(paths, [await _prepare(app, way, error) for error in every_second]) for paths, way in ways]
        return cls(
            overloaded, await _prepare(app, answer_as_problem, InvalidRequest("This is not a request of HTTP/1.1"))
        )

    def overloaded(
        self, path: str, *, retry_after_seconds: int, server_headers: Headers, without_body: bool, close: bool
    ) -> bytes:
        """All of the 503 for a path. `server_headers` are those that the server puts first on every answer."""
        of_path = next(of_paths for paths, of_paths in self._overloaded if paths.fullmatch(path))
        prepared = of_path[retry_after_seconds - 1]
        return _answer(503, prepared, server_headers, without_body=without_body, close=close)

    def unreadable(self, server_headers: Headers) -> bytes:
        """All of the 400 for what cannot be read as a request, after which the connection ends."""
        return _answer(400, self._unreadable, server_headers, close=True)


def _answer(
    status: int, prepared: _Prepared, server_headers: Headers, *, without_body: bool = False, close: bool
) -> bytes:
    request_id = new_id("req").encode()
    return b"".join(
        [
            STATUS_LINE[status],
            _lines(server_headers),
            prepared.headers.replace(_ANY_ID, request_id),
            b"connection: close\r\n\r\n" if close else b"\r\n",
            b"" if without_body else prepared.body.replace(_ANY_ID, request_id),
        ]
    )


async def _prepare(app: FastAPI, way: ErrorAnswer, error: ApiError) -> _Prepared:
    state = {"request_id": _ANY_ID.decode(), "answer_headers": {}}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "app": app,
        "state": state,
    }
    answer = await way(Request(scope), error)
    return _Prepared(_lines(with_common_headers(answer.raw_headers, state)), bytes(answer.body))


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


_ANY_PATH = re.compile(".*", re.DOTALL)
_ANY_ID = new_id("req").encode()
