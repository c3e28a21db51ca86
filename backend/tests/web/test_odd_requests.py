"""Requests that no client sends by accident: odd paths, other hosts, overridden methods, credentials in odd places."""

import asyncio
import json
import logging
from io import StringIO

import httpx2
import pytest
from app.core.log_handler import LogHandler
from tests.harness import JSON, PATIENCE_SECONDS, Account, generate
from tests.problems import REALM, check_problem
from tests.raw_http import JSON_TYPE, head, leave_after, post_of, send_raw

CHANGING = {"date", "x-request-id", "ratelimit", "x-ratelimit-remaining-requests", "set-cookie", "content-length"}
"""The headers that can differ between two answers to one request."""


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/v1",
        "/keys/",
        "/v1%2F%2Fkeys",
        "//v1/keys//",
        "//evil.example/v1/keys",
        "/v1/keys/",
        "/v1/generate/",
        "/health/",
        "/V1/keys",
        "/v1/keys%0a",
        "/v1/keys%00",
        "/v1/keys/a/b",
        "/v1/keys%2F",
        "/docs/assets/nothing.js",
        "/docs/assets/..%2f__init__.py",
        "/docs/assets/%00",
        f"/{'a' * 8_000}",
    ],
    ids=lambda target: target[:40],
)
async def test_an_unknown_path_is_a_404_and_never_a_redirect(
    client: httpx2.AsyncClient, account: Account, target: str
) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await send_raw(client, head(method, target, account.headers.items()))
        if method != "GET" and target.startswith("/docs/assets"):
            check_problem(answer, 405 if target != "/docs/assets/%00" else 404, answer.json()["code"])
        else:
            check_problem(answer, 404, "not_found")
        assert "location" not in answer.headers


async def test_a_slash_that_is_written_as_2f_is_read_as_one_and_joined_with_no_other(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    for path, status in (("/v1%2Fmodels", 200), ("/v1/models%2Fnano-banana", 200), ("/v1%2F/models", 404)):
        answer = await send_raw(client, head("GET", path, key.headers.items()))
        assert answer.status_code == status, path


async def test_slashes_that_follow_each_other_count_as_one(client: httpx2.AsyncClient, account: Account) -> None:
    key = await account.create_key()
    made = (await generate(client, key)).json()
    await generate(client, key)
    image = httpx2.URL(made["url"]).path
    for method, path, headers, joined in [
        ("POST", "/v1/generate", key.headers, ["//v1/generate", "/v1//generate", "///v1////generate"]),
        ("POST", "/v1/images/generations", key.headers, ["//v1/images/generations", "/v1//images/generations"]),
        ("GET", "/v1/generations?limit=1&a=//", key.headers, ["//v1//generations?limit=1&a=//"]),
        ("GET", "/v1/generations?limit=1", key.headers, ["//v1/generations?limit=1"]),
        ("GET", image, {"If-None-Match": f'"{made["id"]}"'}, [f"/{image}", image.replace("/", "//")]),
        ("GET", "/health", {}, ["//health"]),
        ("GET", "/", {}, ["//"]),
    ]:
        plain = await send_raw(client, head(method, path, headers.items()))
        for target in joined:
            answer = await send_raw(client, head(method, target, headers.items()))
            seen, expected = [
                {name: value for name, value in each.headers.items() if name not in CHANGING}
                for each in (answer, plain)
            ]
            assert (answer.status_code, seen) == (plain.status_code, expected), target
            assert "location" not in answer.headers
    answer = await send_raw(client, post_of("//v1//generate", b'{"prompt": "A cute banana"}', [*key.headers.items()]))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "lengths",
    [
        [("Content-Length", "2"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "2")],
        [("Content-Length", "2"), ("Content-Length", "3")],
        [("Content-Length", "2"), ("Content-Length", "2")],
        [("Content-Length", "+2")],
        [("Content-Length", "9" * 30)],
        [("Transfer-Encoding", "gzip")],
        [("Transfer-Encoding", "chunked, gzip")],
    ],
)
async def test_a_body_of_ambiguous_length_is_refused_and_ends_the_connection(
    client: httpx2.AsyncClient, lengths: list[tuple[str, str]]
) -> None:
    answer = await send_raw(client, head("POST", "/v1/auth/login", [JSON_TYPE, *lengths]), b"{}")
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")


async def test_no_response_repeats_the_host_that_a_client_names(client: httpx2.AsyncClient, account: Account) -> None:
    key = await account.create_key()
    await account.create_key()
    named = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    for method, path, headers, body in [
        ("GET", "/v1/keys?limit=1", account.headers, None),
        ("GET", "/v1/keys/", account.headers, None),
        ("POST", "/v1/generate", key.headers, {"prompt": "A cute banana"}),
        ("GET", "/docs", {}, None),
        ("GET", "/openapi.json", {}, None),
        ("PUT", "/health", {}, None),
    ]:
        answer = await client.request(method, path, headers={**headers, **named}, json=body)
        assert "evil" not in answer.text
        assert "evil" not in str(answer.headers.multi_items())


async def test_no_header_overrides_the_method_of_the_request_line(client: httpx2.AsyncClient, account: Account) -> None:
    key = await account.create_key()
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = await client.post(f"/v1/keys/{key.id}", headers={**account.headers, name: "DELETE"})
        check_problem(answer, 405, "method_not_allowed")
    answer = await client.post(f"/v1/keys/{key.id}?_method=DELETE", headers=account.headers)
    check_problem(answer, 405, "method_not_allowed")
    assert (await generate(client, key)).status_code == 200


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "api_key", "key"])
async def test_a_credential_in_the_query_or_a_cookie_is_ignored(
    client: httpx2.AsyncClient, account: Account, name: str
) -> None:
    key = await account.create_key()
    for method, path, secret in [("GET", "/v1/auth/me", account.token), ("POST", "/v1/generate", key.raw)]:
        answer = await client.request(method, path, params={name: secret}, headers={"Cookie": f"{name}={secret}"})
        check_problem(answer, 401, answer.json()["code"])
        assert answer.headers["www-authenticate"] == REALM


@pytest.mark.parametrize("first", ["good", "bad"])
async def test_two_authorization_headers_are_a_400_in_either_order_and_if_equal(
    client: httpx2.AsyncClient, account: Account, first: str
) -> None:
    good, bad = f"Bearer {account.token}", "Bearer wrong"
    for values in [(good, bad) if first == "good" else (bad, good), (good, good)]:
        answer = await send_raw(client, head("GET", "/v1/auth/me", [("Authorization", value) for value in values]))
        check_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/auth/login", "/v1/generate"])
async def test_a_client_that_hangs_up_before_its_body_has_arrived_is_logged_without_an_error(
    client: httpx2.AsyncClient, account: Account, path: str
) -> None:
    key, written = await account.create_key(), StringIO()
    [handler] = [each for each in logging.root.handlers if isinstance(each, LogHandler)]

    def logged() -> list[JSON]:
        lines = [json.loads(line) for line in written.getvalue().splitlines()]
        return [line for line in lines if line.get("route") != "/health" and not line["logger"].startswith("http")]

    before = handler.stream
    handler.setStream(written)
    headers = [*key.headers.items(), JSON_TYPE, ("Content-Length", "10")]
    await leave_after(client, head("POST", path, headers) + b"{")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not logged():
            await client.get("/health")
    handler.setStream(before)
    assert [(line["event"], line["route"], line["status"]) for line in logged()] == [("request", path, 0)]
