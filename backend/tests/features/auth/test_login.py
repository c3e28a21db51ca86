"""Login: its answer, its cost, and that neither reveals whether an account exists."""

import asyncio
import threading

import argon2
import asyncpg
import httpx2
import pytest
from app.core.errors import Unavailable
from app.core.security import UNKNOWN_ACCOUNT_HASH, hash_password, verify_password
from app.features.auth import service
from argon2 import PasswordHasher
from tests.conftest import Start
from tests.harness import JSON, PASSWORD, Account, as_seen, new_email, post, sign_up

CHEAP = PasswordHasher(memory_cost=8, time_cost=1, parallelism=1).hash(PASSWORD)

Costs = list[tuple[str, argon2.Parameters]]


async def _log_in(client: httpx2.AsyncClient, email: str, password: object = PASSWORD) -> httpx2.Response:
    return await post(client, "/v1/auth/login", {"email": email, "password": password})


async def _disable(database: asyncpg.Connection, account: Account) -> None:
    await database.execute("update users set is_active = false where id = $1", account.id)


async def _store_hash(database: asyncpg.Connection, account: Account, password_hash: str) -> None:
    await database.execute("update users set password_hash = $1 where id = $2", password_hash, account.id)


async def _stored_hash(database: asyncpg.Connection, account: Account) -> str:
    stored: str = await database.fetchval("select password_hash from users where id = $1", account.id)
    return stored


async def test_login_returns_a_token_of_the_account(client: httpx2.AsyncClient, account: Account) -> None:
    answer = await _log_in(client, account.email)
    body: JSON = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"access_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("bearer", 3600)
    shown = await client.get("/v1/auth/me", headers={"Authorization": f"Bearer {body['access_token']}"})
    assert (shown.status_code, shown.json()["id"]) == (200, account.id)


async def test_expires_in_is_the_lifetime_of_the_settings(start: Start, account: Account) -> None:
    assert (await _log_in(await start(login_token_minutes=5), account.email)).json()["expires_in"] == 300


async def test_login_accepts_the_email_in_any_letter_case(client: httpx2.AsyncClient, account: Account) -> None:
    assert (await _log_in(client, account.email.upper())).status_code == 200


@pytest.mark.parametrize("password", ["", "a" * 1025, "12345678\0", "12345678\ud800", None, 12345678])
async def test_an_impossible_password_is_422_at_login(
    client: httpx2.AsyncClient, account: Account, password: object
) -> None:
    answer = await _log_in(client, account.email, password)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/password")


@pytest.mark.parametrize("email", ["", "ada", "Ada <ada@example.com>", f"{'a' * 65}@example.com"])
async def test_an_invalid_email_is_422_at_login(client: httpx2.AsyncClient, email: str) -> None:
    answer = await _log_in(client, email)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/email")


async def test_wrong_password_unknown_email_and_disabled_account_look_alike_and_cost_one_equal_hash(
    client: httpx2.AsyncClient,
    account: Account,
    other_account: Account,
    database: asyncpg.Connection,
    hashed: Costs,
) -> None:
    await _disable(database, other_account)
    hashed.clear()
    answers = [
        await _log_in(client, account.email, "wrong password"),
        await _log_in(client, new_email()),
        await _log_in(client, other_account.email),
        await _log_in(client, other_account.email, "wrong password"),
    ]
    assert (answers[0].status_code, answers[0].json()["code"]) == (401, "invalid_credentials")
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="nanobanana"'
    assert [as_seen(answer) for answer in answers] == [as_seen(answers[0])] * 4
    assert hashed == [("verify", argon2.extract_parameters(UNKNOWN_ACCOUNT_HASH))] * 4


@pytest.mark.usefixtures("production_hashes")
def test_the_hash_of_unknown_accounts_costs_what_a_new_hash_costs() -> None:
    assert argon2.extract_parameters(UNKNOWN_ACCOUNT_HASH) == argon2.extract_parameters(hash_password(PASSWORD))


@pytest.mark.usefixtures("production_hashes")
async def test_a_hash_with_old_parameters_is_upgraded_at_login(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    await _store_hash(database, account, CHEAP)
    assert (await _log_in(client, account.email, "wrong password")).status_code == 401
    assert await _stored_hash(database, account) == CHEAP
    assert (await _log_in(client, account.email)).status_code == 200
    renewed = await _stored_hash(database, account)
    assert argon2.extract_parameters(renewed) == argon2.extract_parameters(UNKNOWN_ACCOUNT_HASH)
    assert (await _log_in(client, account.email)).status_code == 200
    assert await _stored_hash(database, account) == renewed


@pytest.mark.usefixtures("production_hashes")
async def test_an_upgraded_hash_never_replaces_a_password_that_was_changed_meanwhile(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, changed, new_hash = threading.Event(), threading.Event(), hash_password("another password")

    def verify_and_wait(password: str, password_hash: str) -> tuple[bool, str | None]:
        verdict = verify_password(password, password_hash)
        checked.set()
        assert changed.wait(30)
        return verdict

    monkeypatch.setattr(service, "verify_password", verify_and_wait)
    await _store_hash(database, account, CHEAP)
    login = asyncio.ensure_future(_log_in(client, account.email))
    assert await asyncio.to_thread(checked.wait, 30)
    await _store_hash(database, account, new_hash)
    changed.set()
    assert (await login).status_code == 200
    assert await _stored_hash(database, account) == new_hash


@pytest.mark.parametrize("stored", ["", "plain text", "$2b$12$" + "a" * 53, "$argon2id$v=19$m=8,t=1,p=1$x$y"])
async def test_a_hash_that_cannot_be_read_matches_no_password(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, stored: str
) -> None:
    await _store_hash(database, account, stored)
    for password in (PASSWORD, "plain text"):
        assert (await _log_in(client, account.email, password)).status_code == 401


async def test_a_login_is_503_when_the_hash_queue_is_full_and_is_not_counted_as_failed(
    start: Start, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> tuple[bool, str | None]:
        raise Unavailable

    client = await start(login_limit_per_account="1/hour")
    with monkeypatch.context() as patched:
        patched.setattr(service, "verify_password", refuse)
        refused = [await _log_in(client, account.email, "wrong password") for _ in range(3)]
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in refused] == [(503, "1")] * 3
    assert (await _log_in(client, account.email)).status_code == 200


async def test_a_disabled_account_cannot_log_in_until_it_is_enabled(
    client: httpx2.AsyncClient, database: asyncpg.Connection
) -> None:
    account = await sign_up(client)
    await _disable(database, account)
    assert (await _log_in(client, account.email)).status_code == 401
    await database.execute("update users set is_active = true where id = $1", account.id)
    assert (await _log_in(client, account.email)).status_code == 200
