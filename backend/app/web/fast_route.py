"""Routes without FastAPI's work for each request, for the one call that the product is paid for."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[ASGIApp]]


class JSONBytes:
    """A 200 response whose body is these bytes of JSON."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        length = str(len(self._content)).encode()
        headers = [(b"content-length", length), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._content})


class PreparedJSON(Response):
    """A response with these headers, named in lower case, and these bytes of JSON. Unlike JSONBytes, every route of
    FastAPI may return it.
    """

    def __init__(self, content: bytes, *, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status_code, self.background, self.body = status, None, content
        length = str(len(content)).encode()
        self.raw_headers = [*headers, (b"content-length", length), (b"content-type", b"application/json")]


class FastRoute(APIRoute):
    """A route whose endpoint takes the request and returns the response as an ASGI application.

    FastAPI documents the dependencies, the response model and the errors that it is declared with, and runs none of
    them: the endpoint calls what it needs, in the order that the API promises. On this route, resolving dependencies
    and validating the response would cost more than the work itself.
    """

    def get_route_handler(self) -> Callable[[Request], Any]:
        return cast(Endpoint, self.endpoint)


class FastRouteDispatcher:
    """Calls the FastRoutes among the routes by method and path, and passes other requests to the application, all after
    `check`, which raises for what no route should see. The path of a FastRoute must have no parameters.
    """

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute], check: Callable[[Scope], None]) -> None:
        self._app = app
        self._check = check
        self._routes = {
            (method, route.path): route
            for route in routes
            if isinstance(route, FastRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._check(scope)
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
