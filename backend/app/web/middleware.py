"""What every request passes first and every answer passes last. Pure ASGI."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import InvalidRequest, NotFound, TooLarge, UnsupportedMedia, answer
from app.core.logs import current_request_id, log_request
from app.core.security import new_id
from app.web.overload import Door

BODY_BYTES_MAX = 64 * 1024


class Envelope:
    """Gives each request an id and each answer its common headers, writes the access line, and answers what was raised.

    It stands outside everything, so no exception leaves as anything but a problem document. The access line names the
    route and not the path: a picture's path is a secret.

    The place that the server has given a request is free again as soon as the answer begins, or when there is none.
    """

    def __init__(self, app: ASGIApp, *, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = new_id("req")
        state["answer_headers"] = {}
        place = state.pop("place", False)  # servers of other people have no door
        status = 0
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._door.room += place
                message["headers"] = with_common_headers(message["headers"], state)
            await send(message)

        current_request_id.set(request_id)
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # it left before its body had come: there is nobody to answer
        except Exception as exception:
            if status:
                raise  # half an answer has left: only the connection's end can still tell
            await (await answer(Request(scope, receive), exception))(scope, receive, send_with_headers)
        finally:
            if not status:
                self._door.room += place
            seconds = time.perf_counter() - started
            log_request(request_id, method=_method(scope), route=_route(scope), status=status, seconds=seconds)


class Gate:
    """Refuses what no route should see: a body that is encoded, or over 64 KiB, before it is read; ambiguous headers;
    odd paths.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        credentials, media_types, length = 0, 0, None
        for name, value in scope["headers"]:
            credentials += name == b"authorization"
            media_types += name == b"content-type"
            if name == b"content-length":
                length = int(value)  # the HTTP parser has seen that it is a number
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise UnsupportedMedia("Send the body as it is, without Content-Encoding")
        if length is not None and length > BODY_BYTES_MAX:
            raise TooLarge
        if credentials > 1 or media_types > 1:
            raise InvalidRequest(f"More than one {'Authorization' if credentials > 1 else 'Content-Type'} header")
        if not scope["path"].isprintable():
            raise NotFound  # the router would take /v1/keys%0A for /v1/keys
        if length is None:
            scope["state"].pop("body", None)  # nobody has declared how long it is: it is counted as it is read
            receive = _bounded(receive)
        await self._app(scope, receive, send)


def add_answer_headers(request: Request, headers: Mapping[bytes, bytes]) -> None:
    """Puts headers, named in lower case, on the answer to this request, whether it becomes a success or an error."""
    request.scope["state"]["answer_headers"].update(headers)


def sent_headers(request: Request, name: bytes) -> list[str]:
    """The values of a request's headers of this name, in lower case, without making an object of all of them."""
    return [value.decode("latin-1") for header, value in request.scope["headers"] if header == name]


def with_common_headers(headers: Iterable[tuple[bytes, bytes]], state: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those that every answer has. As bytes, since every answer passes here."""
    given = [*headers, (b"x-request-id", state["request_id"].encode()), (b"x-content-type-options", b"nosniff")]
    if b"cache-control" not in dict(given):
        given.append((b"cache-control", b"no-store"))
    given += state["answer_headers"].items()
    return given


def _bounded(receive: Receive) -> Receive:
    """A body without a declared length is counted as it comes."""
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


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
