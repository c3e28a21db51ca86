"""Limits in Redis, through HTTP: shared by all processes, and without any identifier of a caller in Redis."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence

import asyncpg
import httpx2
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from tests.conftest import Start
from tests.features.held import held
from tests.features.scraped import METRICS_TOKEN, read, scrape
from tests.harness import PASSWORD, PATIENCE_SECONDS, Account, Key, generate, sign_up

LOOPBACK = "127.0.0.0/8"
ADDRESS, NEIGHBOUR, ANOTHER = "203.0.113.71", "203.0.113.72", "203.0.113.73"

Shared = dict[str, object]


@pytest.fixture
def shared(redis_url: str) -> Shared:
    """Settings of processes that share a Redis, under a secret of their own."""
    return {
        "redis_url": SecretStr(redis_url),
        "redis_timeout_ms": 5000,
        "secret_key": SecretStr(secrets.token_urlsafe(48)),
        "metrics_token": METRICS_TOKEN,
        "trusted_proxies": LOOPBACK,
    }


async def _two(start: Start, shared: Shared, **limits: object) -> list[httpx2.AsyncClient]:
    return [await start(**shared, **limits) for _ in range(2)]


async def _assert_always_shared(processes: Sequence[httpx2.AsyncClient]) -> None:
    """None of the processes has decided a call in its own memory."""
    for process in processes:
        counted = read(await scrape(process))
        assert counted["nanobanana_limit_own_decisions"] == counted["nanobanana_limit_outages"] == {(): 0}


async def test_two_processes_share_the_limits_of_sign_ups_and_logins(start: Start, shared: Shared) -> None:
    actions = ("register", "login")
    limits = {"per_ip": "2/day", "per_network": "3/day"}
    of_both = {f"{action}_limit_{scope}": limit for action in actions for scope, limit in limits.items()}
    processes = await _two(start, shared, **of_both)
    for action in actions:
        answers = [
            await processes[turn % 2].post(f"/v1/auth/{action}", headers={"X-Forwarded-For": address})
            for turn, address in enumerate([ADDRESS] * 4 + [NEIGHBOUR, ANOTHER])
        ]
        assert [answer.status_code for answer in answers] == [415, 415, 429, 429, 415, 429]
        remaining = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
        assert remaining == ["1", "0", "0", "0", "1", "2"]
        waits = [int(answer.headers["retry-after"]) for answer in answers if answer.status_code == 429]
        assert [-(-wait // 3600) for wait in waits] == [12, 12, 8]
    await _assert_always_shared(processes)


async def test_right_passwords_give_back_their_units_in_every_process(start: Start, shared: Shared) -> None:
    processes = await _two(start, shared, login_limit_per_account="2/day", login_limit_per_account_anywhere="2/day")
    account, statuses = await sign_up(processes[0]), []
    for turn, password in enumerate([PASSWORD] * 3 + ["a wrong guess"] * 2 + [PASSWORD] * 2):
        credentials = {"email": account.email, "password": password}
        statuses.append((await processes[turn % 2].post("/v1/auth/login", json=credentials)).status_code)
    assert statuses == [200, 200, 200, 401, 401, 429, 429]
    await _assert_always_shared(processes)


async def test_right_logins_of_several_processes_wait_for_each_other(
    start: Start, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ratelimit.reservations._WAIT_SECONDS", PATIENCE_SECONDS)
    processes = await _two(start, shared, login_limit_per_account="1/day", login_limit_per_ip="1/day")
    account = await sign_up(processes[0])
    credentials = {"email": account.email, "password": PASSWORD}
    calls = [processes[turn % 2].post("/v1/auth/login", json=credentials) for turn in range(10)]
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    credentials["password"] = "a wrong guess"
    statuses = [(await process.post("/v1/auth/login", json=credentials)).status_code for process in processes]
    assert statuses == [401, 429]
    await _assert_always_shared(processes)


async def test_two_processes_allow_no_more_generations_than_one(
    start: Start, shared: Shared, account: Account, database: asyncpg.Connection
) -> None:
    processes = await _two(start, shared, generate_limit_per_key="7/day", generate_limit_per_account="10/day")
    keys = [await account.create_key() for _ in range(2)]
    calls = [generate(processes[n % 2], keys[n // 2 % 2]) for n in range(60)]
    answers = await asyncio.gather(*calls)
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 50}
    delivered = "select count(*) from generations where key_id = any($1) group by key_id"
    counts = [row["count"] for row in await database.fetch(delivered, [key.id for key in keys])]
    assert (sum(counts), max(counts) <= 7) == (10, True)
    await _assert_always_shared(processes)


async def test_two_processes_share_the_limit_for_unknown_keys(start: Start, shared: Shared, account: Account) -> None:
    processes, good = await _two(start, shared, unknown_key_limit_per_ip="5/day"), await account.create_key()
    unknown = [Key("", f"nb_live_{secrets.token_hex(16)}") for _ in range(20)]
    answers = await asyncio.gather(*(generate(processes[n % 2], key) for n, key in enumerate(unknown)))
    assert Counter(answer.status_code for answer in answers) == {401: 5, 429: 15}
    assert [(await generate(process, good)).status_code for process in processes] == [200, 200]
    await _assert_always_shared(processes)


@pytest.mark.usefixtures("patience")
async def test_two_processes_share_the_slots_of_a_key(
    start: Start, shared: Shared, account: Account, database: asyncpg.Connection
) -> None:
    processes = await _two(start, shared, generate_concurrency_per_key=3, record_deadline_seconds=60)
    key = await account.create_key()
    for _ in range(2):
        async with held(database, key, *processes, slots=3, more=3) as refused:
            again = [await generate(process, key) for process in processes]
            codes = {answer.json()["code"] for answer in (*refused, *again)}
            assert codes == {"concurrency_limit_exceeded"}
    await _assert_always_shared(processes)


async def _everything(redis_url: str) -> set[str]:
    """All names and values of limits."""
    found: set[str] = set()
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        async for name in redis.scan_iter(match="nb:*", count=1000):
            kind = await redis.type(name)
            value = await (redis.zrange(name, 0, -1, withscores=True) if kind == "zset" else redis.get(name))
            found.add(f"{kind!r} {name!r} {value!r}")
    return found


@pytest.mark.usefixtures("patience")
async def test_redis_holds_no_identifier_of_a_caller(
    start: Start, shared: Shared, redis_url: str, database: asyncpg.Connection
) -> None:
    of_other_tests = await _everything(redis_url)
    client = await start(**shared, record_deadline_seconds=60)
    account, forwarded = await sign_up(client), {"X-Forwarded-For": ADDRESS}
    key, unknown = await account.create_key(), f"nb_live_{secrets.token_hex(16)}"
    credentials = {"email": account.email, "password": "a wrong guess"}
    for path in ("/v1/auth/register", "/v1/auth/login"):
        await client.post(path, json=credentials, headers=forwarded)
    await client.get("/v1/generations", headers={"Authorization": f"Bearer {unknown}", **forwarded})
    stored = ""
    async with held(database, key, client, slots=2, more=0), asyncio.timeout(PATIENCE_SECONDS):
        while "zset" not in stored:
            stored = "\n".join(await _everything(redis_url) - of_other_tests)
    names = (account.email, account.email.partition("@")[0], account.id, key.id, ADDRESS, "203.0.113", "everybody")
    hidden = (PASSWORD, "a wrong guess", account.token, key.raw, key.raw[8:], unknown, unknown[8:], "A cute banana")
    assert not [word for word in (*names, *hidden) if word in stored]
    of_login = ("login-ip", "login-network", "login-account-network", "login-account-anywhere")
    for limit in (*of_login, "register-account", "unknown-key-ip", "key"):
        assert f":{limit}:" in stored
