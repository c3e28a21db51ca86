"""Limits of logins and failed logins: how many, from where, and that they lock no owner out."""

import asyncio
import threading
from collections import Counter
from itertools import islice

import argon2
import httpx2
import pytest
from app.core.security import verify_password
from tests.conftest import Start
from tests.harness import PASSWORD, PATIENCE_SECONDS, Account, Clock, as_seen, new_email, sign_up
from tests.pool_calls import THREADS, Hold, PoolCalls
from tests.problems import check_problem

STRANGER, OWNER = "203.0.113.7", "198.51.100.9"


async def _log_in(
    client: httpx2.AsyncClient, email: str, password: str = "a wrong guess", *, address: str = ""
) -> httpx2.Response:
    headers = {"X-Forwarded-For": address} if address else {}
    return await client.post("/v1/auth/login", json={"email": email, "password": password}, headers=headers)


async def test_failed_logins_from_one_address_are_limited_for_any_account(
    start: Start, account: Account, limit_clock: Clock, hashed: list[tuple[str, argon2.Parameters]]
) -> None:
    client = await start(login_limit_per_ip="3/hour")
    answers = [
        await _log_in(client, account.email, PASSWORD),
        await _log_in(client, account.email),
        await _log_in(client, new_email()),
        await _log_in(client, "nobody"),
        await _log_in(client, account.email, PASSWORD),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 401, 422, 429]
    headers = [(each.headers["ratelimit"], each.headers["x-ratelimit-remaining-requests"]) for each in answers]
    assert headers == [
        ('"login-ip";r=2;t=1200', "2"),
        ('"login-ip";r=2;t=1200', "2"),
        ('"login-ip";r=1;t=2400', "1"),
        ('"login-ip";r=0;t=3600', "0"),
        ('"login-ip";r=0;t=3600', "0"),
    ]
    assert {each.headers["ratelimit-policy"] for each in answers} == {'"login-ip";q=3;w=3600'}
    assert (answers[-1].json()["detail"], answers[-1].headers["retry-after"]) == ("Rate limit exceeded", "1200")
    assert len(hashed) == 3, "a refused login costs no hash"
    limit_clock.now += 1199
    assert (await _log_in(client, account.email, PASSWORD)).status_code == 429
    limit_clock.now += 1
    assert (await _log_in(client, account.email, PASSWORD)).status_code == 200


async def test_without_a_trusted_proxy_forwarded_addresses_are_ignored(start: Start) -> None:
    client = await start(login_limit_per_ip="3/hour")
    answers = [await _log_in(client, new_email(), address=f"203.0.113.{n}") for n in range(12)]
    assert Counter(answer.status_code for answer in answers) == {401: 3, 429: 9}


async def test_failed_logins_are_limited_by_account_and_address(
    start: Start, account: Account, other_account: Account, limit_clock: Clock
) -> None:
    client = await start(login_limit_per_account="3/hour")
    assert [(await _log_in(client, account.email)).status_code for _ in range(3)] == [401, 401, 401]
    answers = [await _log_in(client, account.email.upper()), await _log_in(client, account.email, PASSWORD)]
    assert [(each.status_code, each.headers["retry-after"]) for each in answers] == [(429, "1200")] * 2
    assert answers[0].json()["detail"] == "Rate limit exceeded"
    assert (await _log_in(client, other_account.email, PASSWORD)).status_code == 200
    limit_clock.now += 1200
    assert (await _log_in(client, account.email, PASSWORD)).status_code == 200


async def test_failed_logins_from_another_address_do_not_lock_the_owner_out(start: Start, account: Account) -> None:
    client = await start(trusted_proxies="127.0.0.0/8", login_limit_per_account="3/hour")
    answers = [await _log_in(client, account.email, address=STRANGER) for _ in range(9)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 6
    assert (await _log_in(client, account.email, PASSWORD, address=OWNER)).status_code == 200


async def test_failed_logins_from_another_network_do_not_lock_the_owner_out(start: Start, account: Account) -> None:
    client = await start(
        trusted_proxies="127.0.0.0/8",
        login_limit_per_account_and_network="3/hour",
        login_limit_per_account_anywhere="5/hour",
    )
    answers = [await _log_in(client, account.email, address=f"2001:db8:7:{n}::1") for n in range(9)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 6
    assert (await _log_in(client, account.email, PASSWORD, address=OWNER)).status_code == 200


async def test_failed_logins_from_many_addresses_are_limited_alike_if_the_account_exists_or_not(
    start: Start, account: Account, limit_clock: Clock
) -> None:
    client = await start(trusted_proxies="127.0.0.0/8", login_limit_per_account_anywhere="5/hour")
    known, unknown = [
        [as_seen(await _log_in(client, email, address=f"{network}.{n}")) for n in range(7)]
        for email, network in ((account.email, "203.0.113"), (new_email(), "198.51.100"))
    ]
    assert [status for status, _, _ in known] == [401] * 5 + [429] * 2
    assert known == unknown
    limit_clock.now += 720
    assert (await _log_in(client, account.email, PASSWORD, address="192.0.2.1")).status_code == 200


async def test_a_refused_login_takes_nothing_from_the_other_bucket(start: Start, account: Account) -> None:
    client = await start(
        trusted_proxies="127.0.0.0/8", login_limit_per_account="1/day", login_limit_per_account_anywhere="2/day"
    )
    answers = [await _log_in(client, account.email, address=STRANGER) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 429, 429, 429]
    assert (await _log_in(client, account.email, address=OWNER)).status_code == 401


@pytest.mark.parametrize(
    "limit",
    ["login_limit_per_account", "login_limit_per_account_and_network", "login_limit_per_account_anywhere"],
)
async def test_right_passwords_do_not_count_as_failed_logins(start: Start, account: Account, limit: str) -> None:
    client = await start(**{limit: "2/day"})
    rights = [(await _log_in(client, account.email, PASSWORD)).status_code for _ in range(4)]
    assert rights == [200] * 4
    wrongs = [(await _log_in(client, account.email)).status_code for _ in range(3)]
    assert wrongs == [401, 401, 429]


@pytest.mark.parametrize(
    "limit",
    ["login_limit_per_account", "login_limit_per_account_and_network", "login_limit_per_account_anywhere"],
)
async def test_parallel_failed_logins_are_no_more_than_the_limit(
    start: Start, limit: str, hashed: list[tuple[str, argon2.Parameters]]
) -> None:
    client = await start(**{limit: "5/day"})
    account = await sign_up(client)
    hashed.clear()
    answers = await asyncio.gather(*(_log_in(client, account.email, f"guess {n:04}") for n in range(60)))
    assert Counter(answer.status_code for answer in answers) == {401: 5, 429: 55}
    assert len(hashed) == 5


@pytest.mark.usefixtures("production_hashes")
async def test_parallel_logins_from_one_address_cannot_exceed_the_limit(start: Start) -> None:
    client = await start(login_limit_per_ip="5/day")
    answers = await asyncio.gather(*(_log_in(client, new_email()) for _ in range(60)))
    assert Counter(answer.status_code for answer in answers) == {401: 5, 429: 55}


TIGHT = {
    "login_limit_per_ip": "3/day",
    "login_limit_per_network": "4/day",
    "login_limit_global": "5/day",
    "login_limit_per_account": "3/day",
    "login_limit_per_account_and_network": "4/day",
    "login_limit_per_account_anywhere": "4/day",
}


@pytest.fixture
def patient_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logins wait for others for as long as a slow machine takes."""
    monkeypatch.setattr("app.ratelimit.reservations._WAIT_SECONDS", PATIENCE_SECONDS)


@pytest.mark.usefixtures("patient_logins", "production_hashes")
async def test_right_logins_together_all_succeed_however_many_they_are(start: Start, account: Account) -> None:
    client = await start(**TIGHT)
    answers = await asyncio.gather(*(_log_in(client, account.email, PASSWORD) for _ in range(30)))
    assert Counter(answer.status_code for answer in answers) == {200: 30}
    failed = [(await _log_in(client, account.email)).status_code for _ in range(4)]
    assert failed == [401, 401, 401, 429], "nothing of the right ones is still counted"


async def test_more_right_logins_than_may_wait_are_a_503_and_never_a_429(
    start: Start, account: Account, hold: Hold, free: threading.Event
) -> None:
    hold("app.features.auth.service.verify_password", verify_password)
    client = await start(**TIGHT, hash_queue_max=4)
    calls = [asyncio.ensure_future(_log_in(client, account.email, PASSWORD)) for _ in range(20)]
    at_once = 3 + 4  # checked or waiting for a thread, and waiting for those
    refused = [await each for each in islice(asyncio.as_completed(calls), 20 - at_once)]
    for answer in refused:
        check_problem(answer, 503, "unavailable")
    free.set()
    assert Counter(answer.status_code for answer in await asyncio.gather(*calls)) == {200: at_once, 503: 13}
    failed = [(await _log_in(client, account.email)).status_code for _ in range(4)]
    assert failed == [401, 401, 401, 429], "a 503 does not count"


async def test_a_network_that_fills_the_hash_queue_with_right_passwords_makes_room_for_the_login_of_another(
    start: Start, account: Account, other_account: Account, hold: Hold, pool_calls: PoolCalls
) -> None:
    held = hold("app.features.auth.service.verify_password", verify_password)
    client = await start(trusted_proxies="127.0.0.0/8", hash_queue_max=2)
    of_network = [f"2001:db8:7:{number}::1" for number in range(THREADS + 2)]
    calls = [asyncio.ensure_future(_log_in(client, account.email, PASSWORD, address=each)) for each in of_network]
    await pool_calls.until(handed=len(calls))
    await held.until_begun(THREADS)
    login = asyncio.ensure_future(_log_in(client, other_account.email, PASSWORD, address=OWNER))
    check_problem(await next(asyncio.as_completed([*calls, login])), 503, "unavailable")
    held.let_go()
    assert (await login).status_code == 200
    assert Counter(answer.status_code for answer in await asyncio.gather(*calls)) == {200: THREADS + 1, 503: 1}


@pytest.mark.usefixtures("patient_logins")
async def test_guesses_among_right_logins_are_no_more_than_the_limit(
    start: Start, account: Account, hashed: list[tuple[str, argon2.Parameters]]
) -> None:
    client = await start(login_limit_per_account="5/day")
    passwords = [PASSWORD if number % 2 else f"guess {number:04}" for number in range(60)]
    answers = await asyncio.gather(*(_log_in(client, account.email, password) for password in passwords))
    told = Counter(answer.status_code for answer in answers)
    assert told[401] == 5
    assert told[200] + told[401] == len(hashed)
    assert set(told) <= {200, 401, 429}
    assert (await _log_in(client, account.email, PASSWORD)).status_code == 429
