"""The application class: FastAPI's routing and documentation, inside middleware of our own."""

from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.fast_route import FastRouteDispatcher
from app.web.middleware import RequestChecks, RequestMiddleware
from app.web.openapi import openapi_document


class App(FastAPI):
    """A FastAPI application that answers every exception with `error_response`, and documents all bodies and errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls the middleware at once: FastAPI would first look whether telemetry is on, for every request."""
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """RequestMiddleware, RequestChecks, the routes. FastAPI's own layers would answer errors a second time; each
        layer costs every request four calls.
        """
        app = FastRouteDispatcher(AsyncExitStackMiddleware(self.router), routes=self.routes)
        return RequestMiddleware(RequestChecks(app), guard=self.state.overload_guard)

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi_document(self)
        return self.openapi_schema
