"""A route without the framework's work per request, for the one call whose cost is the product's."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send


class LeanJSON:
    """A 200 of JSON bytes, sent as they are."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        length = str(len(self._content)).encode()
        headers = [(b"content-length", length), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._content})


Endpoint = Callable[[Request], Awaitable[ASGIApp]]


class LeanRoute(APIRoute):
    """A route whose endpoint takes the request and returns the response, ready to be sent.

    FastAPI documents it: what it is declared with (dependencies, response model, problems) stands in
    OpenAPI. FastAPI does not run those: the endpoint calls what it needs by itself, in the order of the contract. On
    this path resolving dependencies and validating the answer cost more than the work they stand for.
    """

    def get_route_handler(self) -> Callable[[Request], Any]:
        return cast(Endpoint, self.endpoint)


class Lean:
    """Leads requests for lean routes to them, and all others on. Their paths have no parameters: none is matched."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in routes
            if isinstance(route, LeanRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
