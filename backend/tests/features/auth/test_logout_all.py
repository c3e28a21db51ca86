"""Logging out everywhere: it ends all logins of one account at once, on every route, and no API key."""

import re
from collections.abc import Awaitable, Callable

import asyncpg
import httpx2
import pytest
from app.features.auth import sessions
from app.features.auth.service import Accounts
from tests.harness import PASSWORD, Account, generate
from tests.problems import check_problem

NEW = "a banana is a berry"

End = Callable[[Account], Awaitable[httpx2.Response]]


async def _log_out_everywhere(account: Account) -> httpx2.Response:
    return await account.client.post("/v1/auth/logout-all", headers=account.headers)


async def _change_password(account: Account) -> httpx2.Response:
    change = {"current_password": PASSWORD, "new_password": NEW}
    return await account.client.post("/v1/auth/password", json=change, headers=account.headers)


async def _log_in(account: Account, password: str) -> Account:
    answer = await account.client.post("/v1/auth/login", json={"email": account.email, "password": password})
    assert answer.status_code == 200, answer.text
    return Account(account.client, account.id, account.email, answer.json()["access_token"])


WAYS = pytest.mark.parametrize("end", [_log_out_everywhere, _change_password], ids=["logout-all", "password"])


async def test_logging_out_everywhere_is_204_and_a_new_login_works(account: Account) -> None:
    answer = await _log_out_everywhere(account)
    assert (answer.status_code, answer.content) == (204, b"")
    again = await _log_in(account, PASSWORD)
    assert (await again.client.get("/v1/auth/me", headers=again.headers)).status_code == 200


@WAYS
async def test_every_token_that_was_issued_before_is_refused_on_every_route_at_once(
    client: httpx2.AsyncClient, account: Account, end: End
) -> None:
    other = await _log_in(account, PASSWORD)
    assert (await end(account)).status_code in {200, 204}
    paths = (await client.get("/openapi.json")).json()["paths"]
    closed = [
        (method, re.sub(r"\{(\w+)_id\}", lambda match: f"{match[1]}_{'0' * 20}", path))
        for path, methods in paths.items()
        for method, operation in methods.items()
        if {"Login token": []} in operation.get("security", ())
    ]
    assert {("post", "/v1/auth/password"), ("post", "/v1/auth/logout-all"), ("get", "/v1/usage")} <= set(closed)
    for token in (account, other):
        for method, path in closed:
            check_problem(await client.request(method, path, headers=token.headers), 401, "invalid_token")


@WAYS
async def test_other_accounts_logins_and_all_api_keys_stay_valid(
    client: httpx2.AsyncClient, account: Account, other_account: Account, accounts: Accounts, end: End
) -> None:
    key = await account.create_key()
    theirs = await sessions.open_session(accounts, email=other_account.email, password=PASSWORD)
    assert (await end(account)).status_code in {200, 204}
    assert (await generate(client, key)).status_code == 200
    assert (await client.get("/v1/auth/me", headers=other_account.headers)).status_code == 200
    async with accounts.sessions.begin() as session:
        assert await sessions.find_session_user(session, token=theirs.token)


@WAYS
async def test_every_session_in_a_browser_is_ended(
    account: Account, accounts: Accounts, database: asyncpg.Connection, end: End
) -> None:
    tokens = [(await sessions.open_session(accounts, email=account.email, password=PASSWORD)).token for _ in range(2)]
    assert (await end(account)).status_code in {200, 204}
    async with accounts.sessions.begin() as session:
        assert [await sessions.find_session_user(session, token=token) for token in tokens] == [None, None]
    assert await database.fetchval("select count(*) from browser_sessions where user_id = $1", account.id) == 0
