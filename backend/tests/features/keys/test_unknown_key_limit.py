"""Calls with keys that are not active are limited by address, and calls with active keys never are."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterator

import httpx2
import pytest
from tests.conftest import Start
from tests.harness import Account, Clock, Key, generate
from tests.problems import check_problem

ROUTES = [("POST", "/v1/generate"), ("GET", "/v1/generations"), ("GET", "/v1/generations/gen_28fm63cjp43w44255s68")]
UNKNOWN = "nb_live_" + "0" * 32


async def _call(
    client: httpx2.AsyncClient, raw: str, route: tuple[str, str] = ROUTES[0], *, address: str = ""
) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {raw}", **({"X-Forwarded-For": address} if address else {})}
    return await client.request(*route, headers=headers)


async def _assert_good(client: httpx2.AsyncClient, key: Key) -> None:
    assert (await generate(client, key)).status_code == 200
    assert [(await _call(client, key.raw, route)).status_code for route in ROUTES] == [415, 200, 404]


def _never_seen() -> str:
    return f"nb_live_{secrets.token_hex(16)}"


@pytest.fixture
async def bad(account: Account) -> dict[str, Callable[[], str]]:
    """Makers of keys that are not active, by what is wrong with them."""
    revoked = await account.create_key()
    await account.revoke_key(revoked)
    malformed: Iterator[str] = iter(["x", UNKNOWN.upper(), f"{UNKNOWN}0", account.token] * 99)
    return {
        "never seen": _never_seen,
        "remembered": lambda: UNKNOWN,
        "revoked": lambda: revoked.raw,
        "malformed": lambda: next(malformed),
    }


async def test_beyond_the_limit_keys_that_are_not_active_are_429_until_retry_after_on_every_route(
    start: Start, limit_clock: Clock, account: Account, bad: dict[str, Callable[[], str]]
) -> None:
    client, good = await start(unknown_key_limit_per_ip="3/hour"), await account.create_key()
    for kind, route in ((kind, route) for kind in bad for route in ROUTES):
        answers = [await _call(client, bad[kind](), route) for _ in range(6)]
        for answer in answers[:3]:
            check_problem(answer, 401, "invalid_api_key")
        for answer in answers[3:]:
            check_problem(answer, 429, "rate_limit_exceeded")
            assert (answer.headers["retry-after"], "ratelimit" in answer.headers) == ("1200", False)
        await _assert_good(client, good)
        limit_clock.now += 1199
        assert (await _call(client, bad[kind](), route)).status_code == 429
        limit_clock.now += 1
        assert (await _call(client, bad[kind](), route)).status_code == 401
        limit_clock.now += 3600


async def test_all_kinds_and_all_routes_take_from_one_limit(start: Start, bad: dict[str, Callable[[], str]]) -> None:
    client = await start(unknown_key_limit_per_ip="12/day")
    answers = [await _call(client, make(), route) for make in bad.values() for route in ROUTES]
    assert {answer.status_code for answer in answers} == {401}
    assert {(await _call(client, make(), route)).status_code for make in bad.values() for route in ROUTES} == {429}


async def test_active_keys_take_nothing_from_the_limit(start: Start, account: Account) -> None:
    client, good = await start(unknown_key_limit_per_ip="1/day"), await account.create_key()
    for _ in range(3):
        await _assert_good(client, good)
    assert [(await _call(client, UNKNOWN)).status_code for _ in range(2)] == [401, 429]


async def test_calls_without_a_key_take_nothing_from_the_limit(start: Start) -> None:
    client = await start(unknown_key_limit_per_ip="1/day")
    for method, path in ROUTES:
        for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
            answers = [await client.request(method, path, headers=headers) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [401, 401]
    assert [(await _call(client, UNKNOWN)).status_code for _ in range(2)] == [401, 429]


async def test_the_limit_is_that_of_the_address_behind_trusted_proxies(start: Start) -> None:
    client = await start(unknown_key_limit_per_ip="1/day", trusted_proxies="127.0.0.0/8")
    first = [(await _call(client, UNKNOWN, address=f"2001:db8::{n}")).status_code for n in range(1, 4)]
    assert first == [401, 429, 429], "a /64 is one caller"
    forged = [(await _call(client, UNKNOWN, address=f"203.0.113.{n}, 198.51.100.1")).status_code for n in range(3)]
    assert forged == [401, 429, 429]


async def test_parallel_calls_with_unknown_keys_are_no_more_than_the_limit(start: Start, account: Account) -> None:
    client, good = await start(unknown_key_limit_per_ip="5/day"), await account.create_key()
    calls = [_call(client, _never_seen() if n % 2 else UNKNOWN) for n in range(60)]
    answers = await asyncio.gather(*calls, *(generate(client, good) for _ in range(10)))
    assert Counter(answer.status_code for answer in answers) == {401: 5, 429: 55, 200: 10}
