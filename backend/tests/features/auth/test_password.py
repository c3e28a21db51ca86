"""A change of password: its conditions, the logins that it ends, and that of parallel changes one succeeds."""

import asyncio
from collections import Counter

import argon2
import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.features.auth.conftest import HeldCheck
from tests.harness import PASSWORD, Account, Clock, generate, post, sign_up
from tests.problems import check_problem

NEW = "a banana is a berry"

Costs = list[tuple[str, argon2.Parameters]]


async def _change(
    account: Account, current: object = PASSWORD, new: object = NEW, *, client: httpx2.AsyncClient | None = None
) -> httpx2.Response:
    change = {"current_password": current, "new_password": new}
    return await post(client or account.client, "/v1/auth/password", change, headers=account.headers)


async def _log_in(client: httpx2.AsyncClient, account: Account, password: str) -> httpx2.Response:
    return await client.post("/v1/auth/login", json={"email": account.email, "password": password})


async def _me(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})


async def test_a_change_returns_a_valid_token_and_only_the_new_password_logs_in(
    client: httpx2.AsyncClient, account: Account
) -> None:
    answer = await _change(account)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"access_token", "token_type", "expires_in"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("bearer", 3600)
    assert (await _me(client, answer.json()["access_token"])).json()["id"] == account.id
    assert [(await _log_in(client, account, each)).status_code for each in (PASSWORD, NEW)] == [401, 200]


async def test_a_wrong_current_password_changes_nothing_and_the_error_points_to_it(
    client: httpx2.AsyncClient, account: Account, hashed: Costs
) -> None:
    answer = await _change(account, "a wrong guess")
    check_problem(answer, 422, "wrong_password", more={"errors"})
    assert answer.json()["detail"] == "The current password is wrong"
    assert answer.json()["errors"] == [
        {"pointer": "#/current_password", "detail": "Is not the account's password"},
    ]
    assert [kind for kind, _ in hashed] == ["verify"], "nothing is hashed that will not be stored"
    assert (await _me(client, account.token)).status_code == 200
    assert (await _log_in(client, account, PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    "new", ["", "1234567", "\u00e9\u00e9\u00e9", "a" * 1025, "12345678\0", "12345678\ud800", None, 12345678]
)
async def test_a_new_password_is_validated_as_at_registration_before_any_hash_is_computed(
    account: Account, hashed: Costs, new: object
) -> None:
    answer = await _change(account, new=new)
    check_problem(answer, 422, "validation_error", more={"errors"})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/new_password"]
    assert hashed == []


async def test_both_passwords_are_used_exactly_as_they_are_sent(client: httpx2.AsyncClient, account: Account) -> None:
    spaced = "  p\u00e4ssword  "
    assert (await _change(account, f"{PASSWORD} ")).json()["code"] == "wrong_password"
    assert (await _change(account, new=spaced)).status_code == 200
    assert [(await _log_in(client, account, each)).status_code for each in (spaced.strip(), spaced)] == [401, 200]


async def test_the_same_password_again_still_ends_every_earlier_token(
    client: httpx2.AsyncClient, account: Account
) -> None:
    fresh = (await _change(account, new=PASSWORD)).json()["access_token"]
    assert [(await _me(client, token)).status_code for token in (account.token, fresh)] == [401, 200]


async def test_a_stored_hash_that_cannot_be_read_matches_no_current_password(
    account: Account, database: asyncpg.Connection
) -> None:
    await database.execute("update users set password_hash = 'plain text' where id = $1", account.id)
    assert (await _change(account, "plain text")).json()["code"] == "wrong_password"


async def test_of_parallel_changes_one_succeeds_and_the_others_are_refused(
    client: httpx2.AsyncClient, account: Account
) -> None:
    passwords = [f"{NEW} {n}" for n in range(5)]
    answers = await asyncio.gather(*(_change(account, new=password) for password in passwords))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 4}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 401} == {"invalid_token"}
    logins = [(await _log_in(client, account, password)).status_code for password in passwords]
    assert logins == [answer.status_code for answer in answers]
    [winner] = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
    assert (await _me(client, winner)).status_code == 200


async def test_a_login_checked_during_a_change_of_password_returns_a_token_that_is_refused(
    client: httpx2.AsyncClient, start: Start, account: Account, held_check: HeldCheck
) -> None:
    login = asyncio.ensure_future(_log_in(client, account, PASSWORD))
    await held_check.until_reached()
    assert (await _change(account, client=await start())).status_code == 200
    held_check.free.set()
    answer = await login
    assert answer.status_code == 200, "the password was right when it was checked"
    check_problem(await _me(client, answer.json()["access_token"]), 401, "invalid_token")


async def test_a_change_is_not_written_when_all_logins_were_ended_meanwhile(
    client: httpx2.AsyncClient, account: Account, held_check: HeldCheck
) -> None:
    change = asyncio.ensure_future(_change(account))
    await held_check.until_reached()
    assert (await client.post("/v1/auth/logout-all", headers=account.headers)).status_code == 204
    held_check.free.set()
    check_problem(await change, 401, "invalid_token")
    assert [(await _log_in(client, account, each)).status_code for each in (NEW, PASSWORD)] == [401, 200]


async def test_a_change_is_not_written_when_the_account_was_disabled_meanwhile(
    account: Account, database: asyncpg.Connection, held_check: HeldCheck
) -> None:
    stored = await database.fetchval("select password_hash from users where id = $1", account.id)
    change = asyncio.ensure_future(_change(account))
    await held_check.until_reached()
    await database.execute("update users set is_active = false where id = $1", account.id)
    held_check.free.set()
    check_problem(await change, 401, "invalid_token")
    assert await database.fetchval("select password_hash from users where id = $1", account.id) == stored


async def test_no_connection_is_held_while_the_passwords_are_hashed(
    start: Start, account: Account, held_check: HeldCheck
) -> None:
    client = await start(database_pool_size=1)
    change = asyncio.ensure_future(_change(account, client=client))
    await held_check.until_reached()
    assert (await _me(client, account.token)).status_code == 200
    held_check.free.set()
    assert (await change).status_code == 200


async def test_wrong_current_passwords_and_failed_logins_share_one_limit(
    start: Start, account: Account, limit_clock: Clock, hashed: Costs
) -> None:
    client = await start(login_limit_per_account="3/hour")
    wrongs = [
        await _change(account, "a wrong guess", client=client),
        await _log_in(client, account, "a wrong guess"),
        await _change(account, "a wrong guess", client=client),
    ]
    assert [answer.status_code for answer in wrongs] == [422, 401, 422]
    refused = [await _change(account, client=client), await _log_in(client, account, PASSWORD)]
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in refused] == [(429, "1200")] * 2
    assert len(hashed) == 3, "a refused guess computes no hash"
    limit_clock.now += 1200
    assert (await _change(account, client=client)).status_code == 200


@pytest.mark.parametrize(
    "limit",
    ["login_limit_per_account", "login_limit_per_account_and_network", "login_limit_per_account_anywhere"],
)
async def test_successful_and_invalid_changes_do_not_count_as_failed_logins(
    start: Start, account: Account, limit: str
) -> None:
    client = await start(**{limit: "1/day"})
    for _ in range(3):
        assert (await _change(account, new="short", client=client)).status_code == 422
        assert (await _change(account, None, client=client)).status_code == 422
    assert (await _change(account, client=client)).status_code == 200


@pytest.mark.parametrize(
    "limit",
    ["login_limit_per_account", "login_limit_per_account_and_network", "login_limit_per_account_anywhere"],
)
async def test_parallel_guesses_with_a_stolen_token_cannot_exceed_the_limit(
    start: Start, limit: str, hashed: Costs
) -> None:
    client = await start(**{limit: "5/day"})
    account = await sign_up(client)
    hashed.clear()
    answers = await asyncio.gather(*(_change(account, f"guess {n:04}") for n in range(40)))
    assert Counter(answer.status_code for answer in answers) == {422: 5, 429: 35}
    assert len(hashed) == 5


async def test_changes_of_password_that_fail_count_against_the_login_limit_of_the_address(
    start: Start, account: Account, limit_clock: Clock
) -> None:
    assert limit_clock.now
    client = await start(login_limit_per_ip="2/hour")
    answer = await _change(account, client=client)
    assert (answer.status_code, answer.headers["ratelimit"]) == (200, '"login-ip";r=1;t=1800')
    again = Account(client, account.id, account.email, answer.json()["access_token"])
    failed = [await _change(again, "a wrong guess"), await _change(again, NEW, "short")]
    assert [(each.status_code, each.headers["ratelimit"]) for each in failed] == [
        (422, '"login-ip";r=1;t=1800'),
        (422, '"login-ip";r=0;t=3600'),
    ]
    assert (await _change(again, NEW)).status_code == 429
    assert (await _log_in(client, account, NEW)).status_code == 429


async def test_an_api_key_cannot_change_the_password_and_stays_valid_after_a_change(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    change = {"current_password": PASSWORD, "new_password": NEW}
    check_problem(await client.post("/v1/auth/password", json=change, headers=key.headers), 401, "invalid_token")
    assert (await _change(account)).status_code == 200
    assert (await generate(client, key)).status_code == 200
