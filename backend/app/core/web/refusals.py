"""The answers to requests for which there is no room, as bytes: most are needed when there is least time for them."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastapi import FastAPI, Request

from app.core.errors import ErrorAnswer, ErrorAnswers, Overloaded, answer_as_problem
from app.core.security import new_id
from app.core.web.door import RETRY_SECONDS_MAX
from app.core.web.middleware import with_common_headers

Headers = Iterable[tuple[bytes, bytes]]


class _Prepared(NamedTuple):
    headers: bytes
    body: bytes


class Refusals:
    """What the application itself would answer: for each path in its own way, with a request id of its own."""

    def __init__(self, prepared: Sequence[tuple[re.Pattern[str], Sequence[_Prepared]]]) -> None:
        """By path, the last for any: what is told, by the seconds until the caller may come again."""
        self._prepared = prepared

    @classmethod
    async def prepare(cls, app: FastAPI) -> "Refusals":
        """Has the application answer each once, with an id that is still to be put in."""
        answers: ErrorAnswers = app.state.error_answers
        every_second = range(1, RETRY_SECONDS_MAX + 1)
        ways = [*answers, (_ANY_PATH, answer_as_problem)]
        return cls([(paths, [await _prepare(app, way, seconds) for seconds in every_second]) for paths, way in ways])

    def answer(
        self, path: str, *, retry_after_seconds: int, server_headers: Headers, without_body: bool, close: bool
    ) -> bytes:
        """All of one answer. `server_headers` are those that the server puts first on every answer."""
        request_id = new_id("req").encode()
        of_path = next(of_paths for paths, of_paths in self._prepared if paths.fullmatch(path))
        prepared = of_path[retry_after_seconds - 1]
        return b"".join(
            [
                b"HTTP/1.1 503 Service Unavailable\r\n",
                _lines(server_headers),
                prepared.headers.replace(_ANY_ID, request_id),
                b"connection: close\r\n\r\n" if close else b"\r\n",
                b"" if without_body else prepared.body.replace(_ANY_ID, request_id),
            ]
        )


async def _prepare(app: FastAPI, way: ErrorAnswer, retry_after_seconds: int) -> _Prepared:
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
    answer = await way(Request(scope), Overloaded(retry_after_seconds=retry_after_seconds))
    return _Prepared(_lines(with_common_headers(answer.raw_headers, state)), bytes(answer.body))


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


_ANY_PATH = re.compile(".*", re.DOTALL)
_ANY_ID = new_id("req").encode()
