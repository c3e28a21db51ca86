"""With CORS_ORIGINS, pages of those origins may call /v1 from a browser and read every response, refusals included."""

from collections.abc import Sequence

import httpx2
import pytest
from tests.conftest import Start
from tests.harness import Key, sign_up
from tests.raw_http import Headers, head, post_of, send_raw

APP, LOCAL, OTHER = "https://app.example", "http://localhost:3000", "https://evil.example"
BANANA = b'{"prompt": "A cute banana", "size": "64x64"}'
READABLE = (
    "x-request-id, retry-after, x-should-retry, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, ratelimit, ratelimit-policy, idempotent-replayed, link, etag, content-range, x-model"
    ", location, preference-applied, x-credit-remaining, x-budget-remaining"
)
STATUSES = [200, 200, 200, 200, 206, 304, 401, 429, 404, 405, 413, 415, 422, 431]


def cors_of(answer: httpx2.Response) -> dict[str, str]:
    """The response's headers of CORS, without their prefix, and `vary`."""
    prefix = "access-control-"
    names = [name for name in answer.headers if name.startswith(prefix) or name == "vary"]
    return {name.removeprefix(prefix): answer.headers[name] for name in names}


async def answers_of(client: httpx2.AsyncClient, key: Key, *more: tuple[str, str]) -> Sequence[httpx2.Response]:
    """Answers below /v1 with these statuses, to requests with these headers more."""
    own, unknown = [*key.headers.items(), *more], [("api-key", "x"), *more]
    made = (await send_raw(client, post_of("/v1/generate", BANANA, own))).json()
    image = httpx2.URL(made["url"]).path
    requests = [
        post_of("/v1/generate", BANANA, own),
        post_of("/v1/images/generations", BANANA, own),
        head("GET", "/v1/generations", own),
        head("GET", image, more),
        head("GET", image, [*more, ("Range", "bytes=0-9")]),
        head("GET", image, [*more, ("If-None-Match", f'"{made["id"]}"')]),
        head("GET", "/v1/generations", more),
        head("GET", "/v1/generations", unknown),
        head("GET", "/v1/nothing", more),
        head("PUT", "/v1/generate", more),
        head("POST", "/v1/generate", [*own, ("Content-Length", "1073741824")]),
        head("POST", "/v1/generate", own),
        post_of("/v1/generate", b"{}", own),
        head("GET", "//v1/generations", [*own, ("A", "a" * 17_000)]),
    ]
    answers = [await send_raw(client, request) for request in requests]
    assert [answer.status_code for answer in answers] == STATUSES
    return answers


async def started(start: Start, origins: str) -> tuple[httpx2.AsyncClient, Key]:
    client = await start(cors_origins=origins, unknown_key_limit_per_ip="1/day")
    await client.get("/v1/generations", headers={"api-key": "x"})
    return client, await (await sign_up(client)).create_key()


async def ask(client: httpx2.AsyncClient, method: str, path: str, headers: Headers) -> httpx2.Response:
    return await send_raw(client, head(method, path, headers))


async def test_pages_of_the_origins_can_read_every_response_and_no_other_page_can(start: Start) -> None:
    client, key = await started(start, f"{APP}, {LOCAL}")
    for origin in (APP, LOCAL):
        for answer in await answers_of(client, key, ("Origin", origin)):
            assert cors_of(answer) == {"allow-origin": origin, "expose-headers": READABLE, "vary": "Origin"}
    for more in ([("Origin", OTHER)], [("Origin", "null")], [("Origin", APP.upper())], []):
        for answer in await answers_of(client, key, *more):
            assert cors_of(answer) == {"vary": "Origin"}, "caches keep what pages may read apart"


async def test_all_pages_can_read_every_response_with_a_star(start: Start) -> None:
    client, key = await started(start, "*")
    for more in ([("Origin", OTHER)], []):
        for answer in await answers_of(client, key, *more):
            assert cors_of(answer) == {"allow-origin": "*", "expose-headers": READABLE}


@pytest.mark.parametrize("origins", ["*", APP])
async def test_pages_of_other_origins_reach_neither_passwords_nor_the_console(start: Start, origins: str) -> None:
    client, _ = await started(start, origins)
    preflight = [("Origin", APP), ("Access-Control-Request-Method", "POST")]
    for path in ("/v1/auth/login", "/v1/auth/register", "//v1//auth/login", "/v1/auth", "/", "/keys", "/health", "/v2"):
        for method, headers in (("GET", preflight[:1]), ("OPTIONS", preflight)):
            answer = await ask(client, method, path, headers)
            assert cors_of(answer) == {}
            assert answer.status_code != 204


async def test_a_preflight_is_answered_on_every_path_and_allows_what_clients_send(start: Start) -> None:
    client, _ = await started(start, APP)
    wanted = "Authorization,api-key,content-type,idempotency-key,x-goog-api-key,x-goog-api-client"
    of_sdks = "openai-organization,openai-project,x-stainless-lang,x-stainless-retry-count,user-agent,"
    of_sdks += "http-referer,x-title,x-openrouter-title,x-server-timeout"
    asked = [
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", f"{wanted}, {of_sdks},x-evil"),
    ]
    for path in (
        "/v1/generate",
        "/v1/images/generations",
        "/v1/generations/x",
        "//v1/generate",
        "/v1/nothing",
        "/v1beta/models",
    ):
        answer = await ask(client, "OPTIONS", path, [("Origin", APP), *asked])
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["x-request-id"]
        assert cors_of(answer) == {
            "allow-origin": APP,
            "allow-methods": "GET, HEAD, POST, PUT, DELETE",
            "allow-headers": f"{wanted.lower()},{of_sdks}".replace(",", ", "),
            "max-age": "7200",
            "expose-headers": READABLE,
            "vary": "Origin, Access-Control-Request-Headers",
        }


async def test_what_is_no_preflight_of_an_origin_is_a_405(start: Start) -> None:
    client, _ = await started(start, APP)
    asked = ("Access-Control-Request-Method", "POST")
    for headers in ([("Origin", OTHER), asked], [asked], [("Origin", APP)]):
        assert (await ask(client, "OPTIONS", "/v1/generate", headers)).status_code == 405


async def test_by_default_no_page_of_another_origin_can_read_anything(client: httpx2.AsyncClient) -> None:
    for method, status in (("GET", 401), ("OPTIONS", 405)):
        headers = [("Origin", APP), ("Access-Control-Request-Method", "GET")]
        answer = await ask(client, method, "/v1/generations", headers)
        assert (answer.status_code, cors_of(answer)) == (status, {})
