"""Parallel registrations: an email gets one account, and the hash queue and the limits are bounded."""

import asyncio
import os
import secrets
import threading
from collections import Counter
from itertools import product

import argon2
import asyncpg
import httpx2
import pytest
from app.core.security import hash_password
from app.features.auth import service
from tests.conftest import Start
from tests.harness import Account, Clock, as_seen, new_email, register, until_waited_for


async def _too_short(client: httpx2.AsyncClient, email: str, address: str = "203.0.113.1") -> httpx2.Response:
    """A sign-up that computes no hash: 422, unless a limit refuses it."""
    body = {"email": email, "password": "short"}
    return await client.post("/v1/auth/register", json=body, headers={"X-Forwarded-For": address})


async def _count(database: asyncpg.Connection) -> int:
    count: int = await database.fetchval("select count(*) from users")
    return count


async def test_of_200_parallel_registrations_of_one_email_exactly_one_succeeds(
    client: httpx2.AsyncClient, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "hash_password", str.upper)  # quick, so that they reach the database in parallel
    local, domain = f"ada{secrets.token_hex(8)}", "example.com"
    spellings = product((local, local.upper(), local.title(), local.swapcase()), (domain, domain.upper()))
    emails = [f"{name}@{host}" for name, host in spellings] * 25
    answers = await asyncio.gather(*(register(client, email=email) for email in emails))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 199}
    assert await database.fetchval("select count(*) from users where lower(email) = $1", f"{local}@{domain}") == 1


@pytest.mark.parametrize(("end", "status"), [("commit", 409), ("rollback", 201)])
async def test_a_parallel_sign_up_with_one_email_waits_for_the_first(
    client: httpx2.AsyncClient, database: asyncpg.Connection, end: str, status: int
) -> None:
    email = new_email()
    await database.execute("begin")
    await database.execute("insert into users (id, email, password_hash) values ($1, $1, '')", email)
    second = asyncio.ensure_future(register(client, email=email.upper()))
    await until_waited_for(database)
    await database.execute(end)
    assert (await second).status_code == status


async def test_a_sign_up_is_503_when_the_hash_queue_is_full_and_nothing_is_registered(
    start: Start, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, free: threading.Event
) -> None:
    def hash_when_free(password: str) -> str:
        assert free.wait(30)
        return hash_password(password)

    monkeypatch.setattr(service, "hash_password", hash_when_free)
    client, before = await start(hash_queue_max=1), await _count(database)
    room = max(1, (os.cpu_count() or 1) - 1) + 1  # one in each thread, and one that waits
    calls = [asyncio.ensure_future(register(client)) for _ in range(room + 3)]
    async with asyncio.timeout(10):
        refused = [await each for _, each in zip(range(3), asyncio.as_completed(calls), strict=False)]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(503, "unavailable")] * 3
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert await _count(database) == before
    free.set()
    assert Counter(answer.status_code for answer in await asyncio.gather(*calls)) == {201: room, 503: 3}
    assert await _count(database) == before + room


async def test_sign_ups_are_limited_by_address_whether_they_succeed_or_not(
    start: Start, limit_clock: Clock, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await start(register_limit_per_ip="3/hour")
    assert [(await register(client)).status_code for _ in range(2)] == [201, 201]
    assert (await register(client, email="nobody")).status_code == 422
    before = await _count(database)
    monkeypatch.setattr(service, "hash_password", None)  # limits come before hashing
    answers = [await register(client, email=email) for email in (new_email(), "nobody")]
    assert [as_seen(answer) for answer in answers] == [as_seen(answers[0])] * 2
    assert (answers[0].status_code, answers[0].json()["detail"]) == (429, "Rate limit exceeded")
    assert answers[0].headers["retry-after"] == "1200"
    assert answers[0].headers["ratelimit-policy"] == '"register-ip";q=3;w=3600'
    assert answers[0].headers["ratelimit"] == '"register-ip";r=0;t=3600'
    assert await _count(database) == before
    monkeypatch.undo()
    limit_clock.now += 1200
    assert (await register(client)).status_code == 201


async def test_sign_ups_with_one_email_are_limited_in_any_letter_case_and_from_everywhere(
    start: Start, limit_clock: Clock, hashed: list[tuple[str, argon2.Parameters]]
) -> None:
    client = await start(register_limit_per_account="3/hour", trusted_proxies="127.0.0.0/8")
    email = new_email()
    spellings = (email, email.upper(), email.title(), email.swapcase(), email)
    answers = [await _too_short(client, each, f"203.0.{n}.1") for n, each in enumerate(spellings)]
    assert [answer.status_code for answer in answers] == [422] * 3 + [429] * 2
    assert {answer.headers["retry-after"] for answer in answers[3:]} == {"1200"}
    assert {answer.headers["ratelimit"].partition(";")[0] for answer in answers} == {'"register-ip"'}
    assert (await _too_short(client, new_email())).status_code == 422
    limit_clock.now += 1199
    assert (await _too_short(client, email)).status_code == 429
    limit_clock.now += 1
    assert [(await _too_short(client, email)).status_code for _ in range(2)] == [422, 429]
    assert hashed == []


async def test_the_limit_of_an_email_does_not_reveal_whether_it_is_registered(
    start: Start, account: Account, limit_clock: Clock
) -> None:
    client, answers = await start(register_limit_per_account="2/hour", register_limit_per_ip="20/hour"), []
    for email in (account.email, new_email()):
        answers.append([as_seen(await _too_short(client, email)) for _ in range(4)])
        limit_clock.now += 3600
    assert [status for status, *_ in answers[0]] == [422, 422, 429, 429]
    assert answers[0] == answers[1]


async def test_parallel_sign_ups_with_one_email_cannot_exceed_its_limit(start: Start) -> None:
    client, email = await start(register_limit_per_account="5/day"), new_email()
    answers = await asyncio.gather(*(_too_short(client, email) for _ in range(60)))
    assert Counter(answer.status_code for answer in answers) == {422: 5, 429: 55}
