"""Errors: one format on every route, in the promised order, without anything about the implementation."""

import re
import secrets
from typing import Any

import httpx2
import pytest
import structlog
from app.console.errors import PATHS
from app.core.settings import Settings
from app.main import create_app
from app.payments import WEBHOOK_PATH
from fastapi.routing import iter_route_contexts
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN
from tests.harness import Account, generate, sign_up
from tests.problems import REALM, check_problem
from tests.raw_http import JSON_TYPE, head, send_raw

TOO_LARGE = ("Content-Length", "1073741824")
TWO_CREDENTIALS = [("Authorization", "Bearer one"), ("authorization", "Bearer two")]

Route = tuple[str, str]


@pytest.fixture(scope="module")
def routes(settings: Settings) -> dict[str, set[str]]:
    """Every path of the application, with values for its parameters, and the methods that it takes."""
    found: dict[str, set[str]] = {}
    for context in iter_route_contexts(create_app(settings).routes):
        path = context.path or ""
        concrete = re.sub(r"\{\w+(:\w+)?\}", "gen_28fm63cjp43w44255s68", path)
        if context.methods:
            found.setdefault(concrete, set()).update(context.methods)
        else:
            found[f"{concrete}/swagger-ui.css"] = {"GET", "HEAD"}  # a folder of files
    return found


@pytest.fixture(scope="module")
async def operations(client: httpx2.AsyncClient) -> dict[Route, dict[str, Any]]:
    """Every operation of the OpenAPI document, by method and path, with values for the parameters."""
    document = (await client.get("/openapi.json")).json()
    return {
        (method.upper(), re.sub(r"\{\w+(:\w+)?\}", "gen_28fm63cjp43w44255s68", path)): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


@pytest.fixture(scope="module")
async def credentials(client: httpx2.AsyncClient) -> dict[str, dict[str, str]]:
    """Headers that each security scheme of the document accepts, and those for operations without one."""
    account = await sign_up(client)
    return {"Login token": account.headers, "API key": (await account.create_key()).headers, "": {}}


def scheme_of(operation: dict[str, Any]) -> str:
    return next((name for each in operation.get("security", []) for name in each), "")


async def test_every_route_is_documented_except_pages_and_their_files(
    routes: dict[str, set[str]], operations: dict[Route, dict[str, Any]]
) -> None:
    all_routes = {(method, path) for path, methods in routes.items() for method in methods}
    undocumented = {path for method, path in all_routes - set(operations) if method != "HEAD"} - {WEBHOOK_PATH}
    assert set(operations) <= all_routes
    googles = {path.replace("/v1beta/", "/v1/") for _, path in operations if re.fullmatch(r"/v1beta/.+:.+", path)}
    below_v1 = {path for path in undocumented if path.startswith("/v1/")}
    assert below_v1 == googles, "they are documented below /v1beta"
    assert {path for path in undocumented - below_v1 if not PATHS.fullmatch(path)} == {
        "/openapi.json",
        "/.well-known/security.txt",
        "/docs",
        "/docs/start.js",
        "/docs/assets/swagger-ui.css",
        "/examples/gen_28fm63cjp43w44255s68.png",
        "/static/gen_28fm63cjp43w44255s68",
    }


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PATCH", "OPTIONS", "SEARCH", "LINK"])
async def test_a_wrong_method_is_a_405_whose_allow_header_names_every_right_one(
    client: httpx2.AsyncClient, routes: dict[str, set[str]], method: str
) -> None:
    for path, methods in routes.items():
        if method in methods:
            continue
        answer = await send_raw(client, head(method, path))
        check_problem(answer, 405, "method_not_allowed")
        of_a_model = {"GET"} if path.startswith("/v1/models/") and ":" in path else set()  # a name may have a colon
        assert answer.headers["allow"] == ", ".join(sorted(methods | of_a_model)), path


async def test_every_route_refuses_a_large_body_and_two_credentials(
    client: httpx2.AsyncClient, routes: dict[str, set[str]]
) -> None:
    for method, path in ((method, path) for path, methods in routes.items() for method in methods - {"HEAD"}):
        check_problem(await send_raw(client, head(method, path, [TOO_LARGE])), 413, "body_too_large")
        check_problem(await send_raw(client, head(method, path, TWO_CREDENTIALS)), 400, "invalid_request")


async def test_every_route_with_credentials_answers_401_and_says_whether_one_was_sent(
    start: Start, operations: dict[Route, dict[str, Any]], credentials: dict[str, dict[str, str]]
) -> None:
    client = await start(metrics_token=METRICS_TOKEN)
    codes = {"Login token": "invalid_token", "API key": "invalid_api_key", "Metrics token": "invalid_metrics_token"}
    swapped = dict.fromkeys(codes, credentials["Login token"]) | {"Login token": credentials["API key"]}
    closed = {route: scheme_of(operation) for route, operation in operations.items() if scheme_of(operation)}
    assert set(closed.values()) == set(codes)
    for (method, path), scheme in closed.items():
        for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}, {"Authorization": ""}):
            answer = await client.request(method, path, headers=headers)
            check_problem(answer, 401, codes[scheme])
            assert answer.headers["www-authenticate"] == REALM
        takes_both = len(operations[method, path]["security"]) > 1
        others = [] if takes_both else [swapped[scheme]["Authorization"]]
        for wrong in ("Bearer x", "bearer x", "Bearer \xff", "Bearer a b", *others):
            answer = await client.request(method, path, headers=[(b"Authorization", wrong.encode("latin-1"))])
            check_problem(answer, 401, codes[scheme])
            assert answer.headers["www-authenticate"] == f'{REALM}, error="invalid_token"'


async def test_every_route_that_takes_a_body_refuses_a_wrong_one(
    client: httpx2.AsyncClient, operations: dict[Route, dict[str, Any]], credentials: dict[str, dict[str, str]]
) -> None:
    taking = {route: operation for route, operation in operations.items() if "requestBody" in operation}
    assert len(taking) >= 4
    for (method, path), operation in taking.items():
        headers = credentials[scheme_of(operation)]
        as_json = {**headers, "Content-Type": "application/json"}
        as_text = {**headers, "Content-Type": "text/plain"}
        check_problem(await client.request(method, path, content=b"{}", headers=as_text), 415, "unsupported_media_type")
        if "application/json" not in operation["requestBody"]["content"]:
            check_problem(
                await client.request(method, path, content=b"{", headers=as_json), 415, "unsupported_media_type"
            )
            continue
        check_problem(await client.request(method, path, content=b"{", headers=as_json), 400, "invalid_request")
        answer = await client.request(method, path, content=b'{"role": 1}', headers=as_json)
        more = set() if path == "/v1/images/generations" else {"errors"}
        check_problem(answer, 422, "validation_error", more=more)


async def test_an_unknown_key_image_or_parameter_is_refused(
    client: httpx2.AsyncClient, credentials: dict[str, dict[str, str]]
) -> None:
    token = credentials["Login token"]
    for unknown in ("key_28fm63cjp43w44255s68", "nothing", "%00", "%ff", "key_%F0%9F%8D%8C"):
        image = await client.get(f"/v1/images/{unknown}.png")
        check_problem(await client.delete(f"/v1/keys/{unknown}", headers=token), 404, image_or_nothing(unknown, "key"))
        check_problem(image, 404, image_or_nothing(unknown, "image"))
    check_problem(await client.get("/v1/keys?page=2", headers=token), 422, "validation_error", more={"errors"})


def image_or_nothing(identifier: str, kind: str) -> str:
    """The error code for this identifier: a path with a control character is not found before its route is."""
    return "not_found" if identifier == "%00" else f"{kind}_not_found"


async def test_a_wrong_password_is_a_401_that_does_not_mention_a_token(
    client: httpx2.AsyncClient, account: Account
) -> None:
    answer = await client.post("/v1/auth/login", json={"email": account.email, "password": "wrong password"})
    check_problem(answer, 401, "invalid_credentials")
    assert answer.headers["www-authenticate"] == REALM


async def test_limits_and_conflicts_are_problem_documents(start: Start) -> None:
    client = await start(generate_limit_mode="enforce", generate_limit_per_key="1/hour", keys_per_account_max=1)
    account = await sign_up(client)
    key = await account.create_key()
    again = {"email": account.email.upper(), "password": "another password"}
    check_problem(await client.post("/v1/auth/register", json=again), 409, "email_already_registered")
    second = await client.post("/v1/keys", json={"name": "two"}, headers=account.headers)
    check_problem(second, 409, "key_limit_reached")
    assert (await generate(client, key)).status_code == 200
    check_problem(await generate(client, key), 429, "rate_limit_exceeded")


async def test_of_several_errors_the_first_in_the_promised_order_is_answered(start: Start) -> None:
    client = await start(generate_limit_mode="enforce", generate_limit_per_key="1/day", keys_per_account_max=1)
    account = await sign_up(client)
    key = await account.create_key()
    good, bad = ("Authorization", f"Bearer {key.raw}"), ("Authorization", "Bearer wrong")
    text = ("Content-Type", "text/plain")
    broken = ("Content-Length", "1")

    async def order(*headers: tuple[str, str]) -> tuple[int, str]:
        answer = await send_raw(client, head("POST", "/v1/generate", headers), b"{")
        return answer.status_code, answer.json()["code"]

    assert await order(good, text, broken) == (415, "unsupported_media_type")  # which uses up the limit
    assert await order(*TWO_CREDENTIALS, text, TOO_LARGE) == (413, "body_too_large")
    assert await order(good, bad, text, broken) == (400, "invalid_request")
    assert await order(good, text, JSON_TYPE, broken) == (400, "invalid_request")
    assert await order(bad, text, broken) == (401, "invalid_api_key")
    assert await order(bad, JSON_TYPE, ("Content-Encoding", "gzip"), broken) == (401, "invalid_api_key")
    assert await order(good, text, broken) == (429, "rate_limit_exceeded")

    async def create(content: bytes, media_type: str, headers: dict[str, str]) -> int:
        answer = await client.post("/v1/keys", content=content, headers={**headers, "Content-Type": media_type})
        return answer.status_code

    one_too_many = b'{"name": "two"}'
    assert await create(b'{"a": 1, "a": 2}', "text/plain", {}) == 401
    assert await create(b'{"a": 1, "a": 2}', "text/plain", account.headers) == 415
    assert await create(b'{"a": 1, "a": 2}', "application/json", account.headers) == 400
    assert await create(b'{"a": 1}', "application/json", account.headers) == 422
    assert await create(one_too_many, "application/json", account.headers) == 409


async def test_an_unexpected_exception_is_a_500_without_details(
    client: httpx2.AsyncClient, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = secrets.token_hex(8)

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError(canary)

    monkeypatch.setattr("app.features.keys.service.create", fail)
    with structlog.testing.capture_logs() as lines:
        answer = await client.post("/v1/keys", json={"name": "a"}, headers=account.headers)
    assert [line["event"] for line in lines] == ["request_failed"]
    check_problem(answer, 500, "internal_error")
    assert canary not in answer.text
    assert canary not in str(answer.headers)
    for detail in ("RuntimeError", "Traceback", "app.", ".py", "sqlalchemy", "postgres"):
        assert detail not in answer.text
