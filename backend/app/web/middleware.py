"""The middleware that every request passes. Pure ASGI."""

import asyncio
import time
from collections.abc import Awaitable, Sequence

from fastapi import Request
from fastapi.routing import iter_route_contexts
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.bounds import BODY_BYTES_MAX
from app.core.errors import InvalidRequest, NotFound, ResponseTimeout, TooLarge
from app.core.log_requests import log_request
from app.core.logs import current_request_id
from app.core.metrics.requests import OTHER_METHOD, WITHOUT_ROUTE
from app.core.security import new_id
from app.web.body import body_bounds
from app.web.client_address import logged_address
from app.web.error_responses import METHODS_OF_FILES, error_response
from app.web.headers import CREDENTIAL_HEADERS, with_common_headers
from app.web.overload import PATHS_WITHOUT_SLOT, OverloadGuard
from app.web.state import RequestState, request_state

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestMiddleware:
    """Gives each request an id and each response the common headers, answers exceptions, and writes the access line.

    Only TracingMiddleware is outside it, so every exception of a route or another middleware becomes an error response.
    The access line names the route
    and not the path: the path of an image is the secret that gives access to it. A probe that succeeds is logged at
    DEBUG.

    The request's slot of the OverloadGuard, if it holds one, is free again when the response starts, or when the
    request ends without a response.
    """

    def __init__(self, app: ASGIApp, *, guard: OverloadGuard) -> None:
        self._app = app
        self._guard = guard
        self._metrics = guard.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = _begin(scope)
        status = 0
        started = time.perf_counter()

        def send_with_headers(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if state.get("holds_slot"):  # other servers set no such key
                    state["holds_slot"] = False
                    self._guard.free_slots += 1
                message["headers"] = with_common_headers(message["headers"], state)
            return send(message)

        current_request_id.set(state["request_id"])
        try:
            await self._app(scope, receive, send_with_headers)
        except (ClientDisconnect, asyncio.CancelledError) as end:
            # The client waits for no response: it hung up before its body had arrived, or HttpProtocol has answered.
            if not isinstance(end, ClientDisconnect) and not state.get("has_timed_out"):
                raise
        except Exception as exception:
            if status:
                raise  # part of the response has been sent: only the end of the connection can still signal the error
            response = await error_response(Request(scope, receive), exception)
            await response(scope, receive, send_with_headers)
        finally:
            if state.get("holds_slot"):
                self._guard.free_slots += 1
            status = ResponseTimeout.status if state.get("has_timed_out") else status
            seconds = time.perf_counter() - started
            method, route = known_method(scope["method"]), _route(scope)
            self._metrics.seconds[route, method, status].append(seconds)
            _log(scope, method, route, status, seconds)


def _begin(scope: Scope) -> RequestState:
    """The request's state, with what is there from the beginning."""
    state: RequestState = scope.setdefault("state", {})
    state["request_id"] = new_id("req")
    state["response_headers"] = {}
    if "headers" not in state:  # HttpProtocol has set it, which other servers do not
        state["headers"] = dict(scope["headers"])
    return state


def _log(scope: Scope, method: str, route: str, status: int, seconds: float) -> None:
    state: RequestState = scope["state"]
    level, code, limit = "info", None, None
    if status >= InvalidRequest.status:
        code = ResponseTimeout.code if state.get("has_timed_out") else state.get("code")
        limit = state.get("limit")
    elif route in PATHS_WITHOUT_SLOT:
        level = "debug"
    account, key, model = state.get("account"), state.get("key"), state.get("model")
    client = logged_address(scope, state)
    named = level, method, route, account, key, model, client, code, limit
    log_request(state["request_id"], named, status, seconds)


class TracingMiddleware:
    """Traces each request but those of probes. Part of the application only where traces are on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tracing = request_state(scope)["tracing"] if scope["type"] == "http" else None
        if tracing is None or scope["path"] in PATHS_WITHOUT_SLOT:
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def send_with_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = known_method(scope["method"])
        with tracing.request_span(method, scope["headers"]) as span:
            try:
                await self._app(scope, receive, send_with_status)
            finally:
                state, route = request_state(scope), _route(scope)
                attributes = {
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                    "error.type": state.get("code"),
                    "nanobanana.request_id": state.get("request_id"),
                    "nanobanana.account": state.get("account"),
                    "nanobanana.key": state.get("key"),
                    "nanobanana.model": state.get("model"),
                }
                span.describe(attributes, name=f"{method} {route}")


def check_request(scope: Scope) -> None:
    """Raises for a request that no route should see: InvalidRequest for two `Content-Type` headers, or two of one of
    CREDENTIAL_HEADERS; TooLarge for a body that is declared as larger than the path takes, before it is read; NotFound
    for a path with control characters. Without a route, the router's answer is the same whatever came.
    """
    if not scope["path"].isprintable():
        raise NotFound  # the router would take /v1/keys%0A for /v1/keys
    state: RequestState = scope["state"]
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    found = state["headers"]
    length = int(found.get(b"content-length", 0))  # the HTTP parser has checked that it is one number
    if length > BODY_BYTES_MAX and length > (bytes_max := body_bounds(scope).bytes) and _has_route(scope):
        raise TooLarge(bytes_max=bytes_max)
    if len(found) < len(headers) and (title := _sent_twice(headers)) is not None and _has_route(scope):
        raise InvalidRequest(f"More than one {title} header")


def _sent_twice(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The name of the first header that is sent more than once, and must not be."""
    names = [name for name, _ in headers]
    once = {**CREDENTIAL_HEADERS, b"content-type": "Content-Type"}
    return next((title for name, title in once.items() if names.count(name) > 1), None)


def _has_route(scope: Scope) -> bool:
    """Whether a route takes the request's method at its path."""
    contexts = iter_route_contexts(scope["app"].routes)
    return any(
        context.path_regex.match(scope["path"]) and scope["method"] in (context.methods or METHODS_OF_FILES)
        for context in contexts
    )


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", WITHOUT_ROUTE))


def known_method(method: str) -> str:
    """The method; OTHER_METHOD for one that no route has."""
    return method if method in _METHODS else OTHER_METHOD
