"""The application honours added middleware and exception handlers, as Starlette does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import httpx2
import pytest
from app.core.blobs import BlobSpace
from app.core.bounds import EdgeBounds
from app.core.errors import ApiError, TooLarge
from app.core.metrics import Metrics
from app.core.pool import BoundedPool
from app.core.settings import Settings
from app.features.auth.service import EmailAlreadyRegistered
from app.generations.errors import InvalidApiKey
from app.main import create_app
from app.server import http_config
from app.web.app import App
from app.web.connections import Connections
from app.web.overload import OverloadGuard
from app.web.prepared_refusals import PreparedRefusals
from app.web.state import LifespanState, WebSettings
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.harness import PATIENCE_SECONDS, Key, generate, register, serving, sign_up
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, head, leave_after, send_raw

ORIGIN = {"Origin": "https://app.example"}


class Marking:
    """Middleware that adds a header `X-Passed` with its name to each response."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app = app
        self._header = (b"x-passed", name.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append(self._header)
            await send(message)

        await self._app(scope, receive, send_marked)


async def teapot(_request: Request, exception: Exception) -> Response:
    """An exception handler that answers 418, with the name of the exception's class."""
    return Response(type(exception).__name__, status_code=418)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(http_config(app)) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def fail(*_: object, **__: object) -> None:
    raise RuntimeError


async def test_added_middleware_handles_every_response_errors_included(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings)
    app.add_middleware(CORSMiddleware, allow_origins=["*"], expose_headers=["X-Request-Id"])
    async with client_of(app) as client:
        client.headers.update(ORIGIN)
        account = await sign_up(client)
        key = await account.create_key()
        monkeypatch.setattr("app.features.keys.service.create", fail)
        too_large = head("POST", "/v1/generate", [*ORIGIN.items(), ("Content-Length", "1073741824")])
        responses = {
            "success": await generate(client, key),
            "invalid_api_key": await generate(client, Key("", "x")),
            "validation_error": await client.post("/v1/auth/login", json={}),
            "not_found": await client.get("/nothing"),
            "method_not_allowed": await client.put("/health"),
            "body_too_large": await send_raw(client, too_large),
            "internal_error": await client.post("/v1/keys", json={"name": "a"}, headers=account.headers),
        }
        for code, response in responses.items():
            assert response.headers["access-control-allow-origin"] == "*", code
            assert response.headers["x-request-id"]
            if code != "success":
                more = {"errors"} if code == "validation_error" else set()
                check_problem(response, response.status_code, code, more=more)
        preflight = await client.options("/v1/keys", headers={"Access-Control-Request-Method": "GET"})
        assert (preflight.status_code, preflight.text) == (200, "OK")


async def test_middleware_that_was_added_last_is_the_outermost(settings: Settings) -> None:
    app = create_app(settings)
    for name in ("inner", "outer"):
        app.add_middleware(Marking, name)
    async with client_of(app) as client:
        for path in ("/health", "/nothing"):
            assert (await client.get(path)).headers.get_list("x-passed") == ["inner", "outer"]


async def test_a_client_that_hangs_up_is_no_error_behind_middleware_either(settings: Settings, log: StringIO) -> None:
    def access_lines() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        assert "request_failed" not in {line["event"] for line in lines}
        return [line for line in lines if line.get("route") == "/v1/auth/login"]

    app = create_app(settings)
    app.add_middleware(Marking, "any")
    async with client_of(app) as client, asyncio.timeout(PATIENCE_SECONDS):
        await leave_after(client, head("POST", "/v1/auth/login", [JSON_TYPE, ("Content-Length", "10")]) + b"{")
        while not access_lines():
            await client.get("/health")
    assert [line["status"] for line in access_lines()] == [0]


async def test_an_exception_handler_answers_its_class_and_status_and_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings)
    for handled in (EmailAlreadyRegistered, InvalidApiKey, TooLarge, 404):
        app.add_exception_handler(handled, teapot)
    async with client_of(app) as client:
        account = await sign_up(client)
        handled_responses = [
            await register(client, email=account.email),
            await generate(client, Key("", "x")),  # by the fast route
            await send_raw(client, head("POST", "/v1/keys", [("Content-Length", "1073741824")])),  # before any route
            await client.get("/nothing"),
        ]
        assert [response.status_code for response in handled_responses] == [418] * 4
        names = [response.text for response in handled_responses]
        assert names == ["EmailAlreadyRegistered", "InvalidApiKey", "TooLarge", "HTTPException"]
        assert all(response.headers["x-request-id"] for response in handled_responses)
        check_problem(await client.put("/health"), 405, "method_not_allowed")
        check_problem(await client.get("/v1/images/gen_28fm63cjp43w44255s68.png"), 404, "image_not_found")
        monkeypatch.setattr("app.features.keys.service.create", fail)
        failed = await client.post("/v1/keys", json={"name": "a"}, headers=account.headers)
        check_problem(failed, 500, "internal_error")


@pytest.mark.parametrize("key", [500, Exception])
async def test_a_handler_of_500_answers_unexpected_exceptions_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, key: int | type[Exception]
) -> None:
    app = create_app(settings)
    app.exception_handler(key)(teapot)
    async with client_of(app) as client:
        account = await sign_up(client)
        monkeypatch.setattr("app.features.keys.service.create", fail)
        failed = await client.post("/v1/keys", json={"name": "a"}, headers=account.headers)
        assert (failed.status_code, failed.text) == (418, "RuntimeError")
        check_problem(await generate(client, Key("", "x")), 401, "invalid_api_key")
        check_problem(await client.get("/nothing"), 404, "not_found")


async def test_middleware_and_handlers_can_be_given_to_the_constructor() -> None:
    metrics = Metrics()
    guard = OverloadGuard(10, metrics, proxies=())
    web = WebSettings("https://pictures.test", trusted_proxies=(), error_formats=())
    no_threads = BoundedPool(threads=1, queue_max=0, name="none")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[LifespanState]:
        yield {
            "overload_guard": guard,
            "connections": Connections(EdgeBounds(), metrics, per_address_max=10),
            "prepared_refusals": await PreparedRefusals.prepare({"web": web}),
            "web": web,
            "services": None,
            "console": None,
            "blobs": BlobSpace(memory_bytes_max=0, file_bytes_max=0, folder=Path(), threads=no_threads),
            "tracing": None,
        }

    app = App(
        lifespan=lifespan,
        overload_guard=guard,
        middleware=[Middleware(Marking, "given")],
        exception_handlers={ApiError: teapot},
    )

    @app.get("/conflict")
    async def conflict() -> None:
        raise EmailAlreadyRegistered

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPException(410)

    async with client_of(app) as client:
        response = await client.get("/conflict")
        assert (response.status_code, response.headers["x-passed"]) == (418, "given")
        check_problem(await client.get("/gone"), 400, "invalid_request")


async def test_without_additions_no_layer_is_there_for_them(settings: Settings) -> None:
    app, scopes = create_app(settings), []

    @app.get("/scope")
    async def keep_scope(request: Request) -> None:
        scopes.append(request.scope)

    async with client_of(app) as client:
        assert (await client.get("/scope")).status_code == 200
    assert "starlette.exception_handlers" not in scopes[0]
