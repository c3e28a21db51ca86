"""The application class: FastAPI's routing and documentation, inside middleware of our own."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import ApiError, InternalError
from app.web.cors import CorsMiddleware, CorsPolicy
from app.web.error_responses import error_response
from app.web.fast_route import FastRouteDispatcher
from app.web.middleware import RequestMiddleware, TracingMiddleware, check_request
from app.web.openapi import openapi_document
from app.web.overload import OverloadGuard

ExceptionHandlers = Mapping[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]


async def _raise(_request: Request, exception: Exception) -> Response:
    raise exception


_HANDLERS: ExceptionHandlers = {
    **dict.fromkeys((ApiError, HTTPException, RequestValidationError, Exception), error_response),
    ClientDisconnect: _raise,
}


class App(FastAPI):
    """A FastAPI application that answers every exception with `error_response`, and documents all bodies and errors.

    Added middleware and exception handlers do what they do in Starlette. Middleware is inside RequestMiddleware and
    around everything else; errors reach it as responses. A handler is found by the class of the exception, or by the
    status of Starlette's HTTPException; one for Exception does its own logging. Requests that HttpProtocol refuses
    reach neither.
    """

    def __init__(
        self,
        *,
        overload_guard: OverloadGuard,
        cors: CorsPolicy | None = None,
        is_traced: bool = False,
        exception_handlers: ExceptionHandlers | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._overload_guard = overload_guard
        self._cors = cors
        self._is_traced = is_traced
        self.exception_handlers = dict(exception_handlers or {})  # without FastAPI's

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls the middleware at once: FastAPI would first look whether telemetry is on, for every request."""
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """RequestMiddleware, FastRouteDispatcher with the checks of requests, the routes. Between the first two, only
        if there is any: CORS; added middleware, with what answers exceptions for it. Outermost, if traces are on:
        TracingMiddleware. Each layer costs every request four calls.
        """
        routes = AsyncExitStackMiddleware(self.router)
        app: ASGIApp = FastRouteDispatcher(routes, routes=self.routes, check=check_request)
        if self.user_middleware or self.exception_handlers:
            added = {Exception if key == InternalError.status else key: h for key, h in self.exception_handlers.items()}
            app = ExceptionMiddleware(app, handlers={**_HANDLERS, **added})
            for middleware, arguments, named in reversed(self.user_middleware):
                app = middleware(app, *arguments, **named)
        if self._cors is not None:
            app = CorsMiddleware(app, self._cors)
        app = RequestMiddleware(app, guard=self._overload_guard)
        return TracingMiddleware(app) if self._is_traced else app

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi_document(self)
        return self.openapi_schema
