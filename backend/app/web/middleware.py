"""The middleware that every request passes. Pure ASGI."""

import time
from collections.abc import Iterable

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import InvalidRequest, NotFound, TooLarge, UnsupportedMedia
from app.core.logs import current_request_id, log_request
from app.core.security import new_id
from app.web.error_responses import error_response
from app.web.headers import with_common_headers
from app.web.overload import OverloadGuard
from app.web.state import RequestState, request_state

BODY_BYTES_MAX = 64 * 1024

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestMiddleware:
    """Gives each request an id and each response the common headers, answers exceptions, and writes the access line.

    It is the outermost middleware, so that every exception becomes an error response. The access line names the route
    and not the path: the path of an image is the secret that gives access to it.

    The request's slot of the OverloadGuard, if HttpProtocol took one, is free again when the response starts, or when
    the request ends without a response.
    """

    def __init__(self, app: ASGIApp, *, guard: OverloadGuard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: RequestState = scope.setdefault("state", {})
        request_id = state["request_id"] = new_id("req")
        state["response_headers"] = {}
        holds_slot = state.pop("holds_slot", False)  # other servers set no such key
        status = 0
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if holds_slot:
                    self._guard.free_slots += 1
                message["headers"] = with_common_headers(message["headers"], state)
            await send(message)

        current_request_id.set(request_id)
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # the client hung up before its body had arrived, and waits for no response
        except Exception as exception:
            if status:
                raise  # part of the response has been sent: only the end of the connection can still signal the error
            response = await error_response(Request(scope, receive), exception)
            await response(scope, receive, send_with_headers)
        finally:
            if holds_slot and not status:
                self._guard.free_slots += 1
            seconds = time.perf_counter() - started
            log_request(request_id, method=_method(scope), route=_route(scope), status=status, seconds=seconds)


class RequestChecks:
    """Refuses requests that no route should see: a body that is encoded or over 64 KiB, before it is read; two
    `Authorization` or two `Content-Type` headers; paths with control characters.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_length = _check_headers(scope["headers"])
        if not scope["path"].isprintable():
            raise NotFound  # the router would take /v1/keys%0A for /v1/keys
        if not has_length:
            request_state(scope).pop("whole_body", None)  # a body without a length is counted while it is read
            receive = _bounded(receive)
        await self._app(scope, receive, send)


def _check_headers(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the length of the body is declared. Raises for headers that no route should see."""
    credentials, media_types, length = 0, 0, None
    for name, value in headers:
        if name == b"authorization":
            credentials += 1
        elif name == b"content-type":
            media_types += 1
        elif name == b"content-length":
            length = int(value)  # the HTTP parser has checked that it is a number
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise UnsupportedMedia("Send the body as it is, without Content-Encoding")
    if length is not None and length > BODY_BYTES_MAX:
        raise TooLarge
    if credentials > 1 or media_types > 1:
        raise InvalidRequest(f"More than one {'Authorization' if credentials > 1 else 'Content-Type'} header")
    return length is not None


def _bounded(receive: Receive) -> Receive:
    """Receives the request's body, and raises TooLarge as soon as more than BODY_BYTES_MAX has arrived."""
    total = 0

    async def receive_within_bound() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > BODY_BYTES_MAX:
            raise TooLarge
        return message

    return receive_within_bound


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"
