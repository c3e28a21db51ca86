"""The line of a request answers which account called with which key, from where, and why the call was refused."""

from io import StringIO

import httpx2
from tests.conftest import Start
from tests.console.browser import new_browser
from tests.core.test_logs import Line, lines_of, settle
from tests.harness import PASSWORD, new_email, sign_up

ADDRESS = "203.0.113.7"
FORWARDED = {"X-Forwarded-For": f"10.9.9.9, {ADDRESS}"}
IMAGES, PASSWORDS, LOGIN = "/v1/images/generations", "/v1/auth/password", "/v1/auth/login"
ASKED = {"status", "account", "key", "model", "client", "code", "limit"}


def line_of(log: StringIO, answer: httpx2.Response) -> Line:
    """The line of the request that was answered so."""
    found = [line for line in lines_of(log) if line.get("request_id") == answer.headers["x-request-id"]]
    [line] = [line for line in found if line["event"] == "request"]
    return line


async def test_the_line_names_the_caller_in_every_dialect_and_the_reason_of_a_refusal(
    start: Start, log: StringIO
) -> None:
    limits = {"generate_limit_per_key": "2/hour", "unknown_key_limit_per_ip": "1/hour"}
    client = await start(trusted_proxies="127.0.0.0/8", public_url="http://console.test", **limits)
    client.headers.update(FORWARDED)
    account = await sign_up(client)
    key = await account.create_key()
    stranger = {"client": ADDRESS}
    owner = {**stranger, "account": account.account_id}
    caller = {**owner, "key": key.id}
    body, unknown = {"prompt": "A cute banana"}, {"Authorization": f"Bearer nb_live_{'0' * 32}"}
    wrong, change = {"password": "a wrong guess"}, {"current_password": "a wrong guess", "new_password": PASSWORD}
    refused, no_key, no_login = (
        {"code": "rate_limit_exceeded"},
        {"code": "invalid_api_key"},
        {"code": "invalid_credentials"},
    )
    answers = [
        (await client.request(method, path, json=sent, headers=headers), {"status": status, **expected})
        for method, path, headers, sent, status, expected in (
            ("POST", "/v1/generate", key.headers, body, 200, {**caller, "model": "nano-banana"}),
            ("POST", "/v1/generate", key.headers, {}, 422, {**caller, "code": "validation_error"}),
            ("POST", "/v1/generate", key.headers, body, 429, {**caller, **refused, "limit": "key"}),
            ("POST", IMAGES, key.headers, body, 429, {**caller, **refused, "limit": "key"}),
            ("GET", "/v1/generations", key.headers, None, 200, caller),
            ("POST", "/v1/generate", {}, body, 401, {**stranger, **no_key}),
            ("POST", "/v1/generate", unknown, body, 401, {**stranger, **no_key}),
            ("POST", "/v1/generate", unknown, body, 429, {**stranger, **refused, "limit": "unknown-key-ip"}),
            ("GET", "/v1/usage", account.headers, None, 200, owner),
            ("GET", "/v1/usage", {}, None, 401, {**stranger, "code": "invalid_token"}),
            ("POST", PASSWORDS, account.headers, change, 422, {**owner, "code": "wrong_password"}),
            ("POST", LOGIN, {}, {**wrong, "email": account.email}, 401, {**owner, **no_login}),
            ("POST", LOGIN, {}, {**wrong, "email": new_email()}, 401, {**stranger, **no_login}),
            ("GET", "/nowhere", {}, None, 404, {**stranger, "code": "not_found"}),
        )
    ]
    async with new_browser(client) as browser:
        browser.client.headers.update(FORWARDED)
        await browser.log_in(account.email)
        page = await browser.open("/usage")
        failed = await browser.log_in(account.email, "a wrong guess")
        form = {"key_id": key.id, "prompt": "A cute banana"}
        drawn = await browser.submit(await browser.open("/playground"), "/playground", **form)
    answers += [
        (page.response, {"status": 200, **owner}),
        (failed.response, {"status": 401, **owner, **no_login}),
        (drawn.response, {"status": 429, **caller, **refused, "limit": "key"}),
    ]
    await settle(client)
    for answer, expected in answers:
        line = line_of(log, answer)
        assert {name: line[name] for name in line if name in ASKED} == expected, line


async def test_the_line_names_the_model_however_the_caller_waits(start: Start, log: StringIO) -> None:
    client = await start()
    key = await (await sign_up(client)).create_key()
    preferences = {"respond-async": 202, "wait=5": 200, "respond-async, wait=5": 200}
    answers = [
        await client.post(
            "/v1/generate", json={"prompt": "A cute banana"}, headers={**key.headers, "Prefer": preference}
        )
        for preference in preferences
    ]
    assert [answer.status_code for answer in answers] == list(preferences.values())
    await settle(client)
    assert [line_of(log, answer)["model"] for answer in answers] == ["nano-banana"] * len(answers)


async def test_without_addresses_no_line_has_one(start: Start, log: StringIO) -> None:
    client = await start(trusted_proxies="127.0.0.0/8", log_client_address=False)
    answer = await client.get("/v1/keys", headers=FORWARDED)
    await settle(client)
    assert line_of(log, answer)["code"] == "invalid_token"
    assert not [each for each in ("127.0.0.1", ADDRESS) if each in log.getvalue()]


async def test_a_probe_is_logged_at_debug_unless_it_fails(client: httpx2.AsyncClient, log: StringIO) -> None:
    answers = [await client.get(path) for path in ("/health", "/ready", "/metrics")]
    await settle(client)
    levels = [(line_of(log, answer)["status"], line_of(log, answer)["level"]) for answer in answers]
    assert levels == [(200, "debug"), (200, "debug"), (404, "info")]
