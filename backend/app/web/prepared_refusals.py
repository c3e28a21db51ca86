"""Responses that HttpProtocol sends without calling the application, as bytes made in advance: most are needed while
the process is overloaded.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import Request
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.core.errors import (
    ApiError,
    HeadersTooLarge,
    InvalidRequest,
    Overloaded,
    RequestTimeout,
    ResponseTimeout,
    UriTooLong,
)
from app.core.security import new_id
from app.web.cors import CorsPolicy
from app.web.error_responses import ErrorFormat, problem_response
from app.web.headers import with_common_headers
from app.web.overload import RETRY_SECONDS_MAX
from app.web.state import RequestState, request_state

Headers = Iterable[tuple[bytes, bytes]]

_ANY_PATH = re.compile(".*", re.DOTALL)
_PLACEHOLDER_ID = new_id("req").encode()


class _Prepared(NamedTuple):
    headers: bytes
    body: bytes


class PreparedRefusals:
    """The bytes of what the application would respond, in the format of each path, with a new request id each time."""

    def __init__(
        self,
        overloaded: Sequence[tuple[re.Pattern[str], Sequence[_Prepared]]],
        timeouts: Sequence[tuple[re.Pattern[str], _Prepared]],
        endings: Mapping[type[ApiError], _Prepared],
        cors: CorsPolicy | None,
    ) -> None:
        """`overloaded` has the responses for each pattern of paths, in order of `Retry-After`, which begins with one
        second, and `timeouts` one for each. The last pattern matches every path.
        """
        self._overloaded = overloaded
        self._timeouts = timeouts
        self._endings = endings
        self._cors = cors

    @classmethod
    async def prepare(cls, state: RequestState, *, ending: ErrorFormat = problem_response) -> "PreparedRefusals":
        """Has each of the application's error formats make each response once, with a placeholder as request id.
        `state` is what the formats read of a request's state. `ending` makes the responses that end a connection:
        whose path they are for may not be known.
        """
        errors = [Overloaded(retry_after_seconds=seconds) for seconds in range(1, RETRY_SECONDS_MAX + 1)]
        formats = [*state["web"].error_formats, (_ANY_PATH, problem_response)]
        overloaded = [
            (paths, [await _prepare(state, make_response, error) for error in errors])
            for paths, make_response in formats
        ]
        timeouts = [
            (paths, await _prepare(state, make_response, ResponseTimeout())) for paths, make_response in formats
        ]
        unreadable = InvalidRequest("This is not a request of HTTP/1.1")
        endings = [unreadable, RequestTimeout(), UriTooLong(), HeadersTooLarge()]
        prepared_endings = {type(each): await _prepare(state, ending, each) for each in endings}
        return cls(overloaded, timeouts, prepared_endings, state["web"].cors)

    def overloaded(
        self,
        path: str,
        headers: Headers,
        *,
        retry_after_seconds: int,
        server_headers: Headers,
        without_body: bool,
        close: bool,
    ) -> bytes:
        """The whole 503 for a request with this path and these headers. `server_headers` are those that uvicorn puts
        first on every response; `close` adds `Connection: close`.
        """
        of_path = next(prepared for paths, prepared in self._overloaded if paths.fullmatch(path))
        prepared = of_path[retry_after_seconds - 1]
        cors = self._cors_headers(path, headers)
        return _response(503, prepared, server_headers, cors, without_body=without_body, close=close)

    def response_timeout(self, scope: Mapping[str, Any], server_headers: Headers) -> bytes:
        """The whole 504 for the request of this scope, with its id, and with `Connection: close`."""
        path, is_head = scope["path"], scope["method"] == "HEAD"
        prepared = next(prepared for paths, prepared in self._timeouts if paths.fullmatch(path))
        request_id, cors = request_state(scope).get("request_id", ""), self._cors_headers(path, scope["headers"])
        return _response(504, prepared, server_headers, cors, without_body=is_head, close=True, request_id=request_id)

    def ending(self, error: type[ApiError], target: bytes, headers: Headers, server_headers: Headers) -> bytes:
        """The whole response with which the server ends a connection: InvalidRequest for bytes that are not a request,
        RequestTimeout, UriTooLong or HeadersTooLarge. `target` and `headers` are what has been read of the request's.
        """
        cors = self._cors_headers(target.partition(b"?")[0].decode("latin-1"), headers)
        return _response(error.status, self._endings[error], server_headers, cors, close=True)

    def _cors_headers(self, path: str, headers: Headers) -> Headers:
        return () if self._cors is None else self._cors.headers_for(path, headers).items()


def _response(
    status: int,
    prepared: _Prepared,
    server_headers: Headers,
    cors_headers: Headers,
    *,
    without_body: bool = False,
    close: bool,
    request_id: str = "",
) -> bytes:
    own_id = (request_id or new_id("req")).encode()
    return b"".join(
        [
            STATUS_LINE[status],
            _lines(server_headers),
            prepared.headers.replace(_PLACEHOLDER_ID, own_id),
            _lines(cors_headers),
            b"connection: close\r\n\r\n" if close else b"\r\n",
            b"" if without_body else prepared.body.replace(_PLACEHOLDER_ID, own_id),
        ]
    )


async def _prepare(given: RequestState, make_response: ErrorFormat, error: ApiError) -> _Prepared:
    state: RequestState = {**given, "request_id": _PLACEHOLDER_ID.decode(), "response_headers": {}}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "state": state,
    }
    response = await make_response(Request(scope), error)
    headers = [header for header in response.raw_headers if header[0] != b"connection"]  # the protocol sets it
    return _Prepared(_lines(with_common_headers(headers, state)), bytes(response.body))


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
