"""What every request passes first and every answer passes last. Pure ASGI."""

import time
from collections.abc import Mapping

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import InvalidRequest, NotFound, TooLarge, answer
from app.core.logs import logger
from app.core.security import new_id

BODY_BYTES_MAX = 64 * 1024


class Envelope:
    """Gives each request an id and each answer its common headers, writes the access line, and answers what was raised.

    It stands outside everything, so no exception leaves as anything but a problem document. The access line names the
    route and not the path: a picture's path is a secret.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.request_id = new_id("req")
        request.state.answer_headers = {}
        status = 0
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), request)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request.state.request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                pass  # it left before its body had come: there is nobody to answer
            except Exception as exception:
                if status:
                    raise  # half an answer has left: only the connection's end can still tell
                await (await answer(request, exception))(scope, receive, send_with_headers)
            finally:
                milliseconds = round((time.perf_counter() - started) * 1000, 2)
                logger.info("request", method=_method(scope), route=_route(scope), status=status, ms=milliseconds)


class Gate:
    """Refuses what no route should see: a body over 64 KiB, before it is read, ambiguous headers and odd paths."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if int(headers.get("content-length", "0")) > BODY_BYTES_MAX:  # the HTTP parser has seen that it is a number
            raise TooLarge
        for name in ("authorization", "content-type"):
            if len(headers.getlist(name)) > 1:
                raise InvalidRequest(f"More than one {name.title()} header")
        if not scope["path"].isprintable():
            raise NotFound  # the router would take /v1/keys%0A for /v1/keys
        await self._app(scope, _bounded(receive), send)


def add_answer_headers(request: Request, headers: Mapping[str, str]) -> None:
    """Puts headers on the answer to this request, whether it becomes a success or an error."""
    request.state.answer_headers.update(headers)


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


def _add_headers(headers: MutableHeaders, request: Request) -> None:
    headers["X-Request-ID"] = request.state.request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")
    for name, value in request.state.answer_headers.items():
        headers[name] = value


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
