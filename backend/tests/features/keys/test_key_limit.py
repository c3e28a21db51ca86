"""The maximum of keys of an account, also under parallel creates."""

import asyncio
from collections import Counter

import asyncpg
import httpx2
from tests.conftest import Start
from tests.harness import Account, sign_up

_ALL_BUT_ONE = """
    insert into api_keys (id, user_id, name, environment, prefix, key_hash)
    select 'key_' || md5($1 || n), $1, 'a key', case n % 2 when 0 then 'live' else 'test' end, 'nb_live_', sha256(
        ($1 || n)::bytea)
    from generate_series(1, 99) n
"""


async def _create(account: Account, environment: str = "live") -> httpx2.Response:
    body = {"name": "a key", "environment": environment}
    return await account.client.post("/v1/keys", json=body, headers=account.headers)


async def _unrevoked(database: asyncpg.Connection, account: Account) -> int:
    query = "select count(*) from api_keys where user_id = $1 and revoked_at is null"
    count: int = await database.fetchval(query, account.id)
    return count


async def test_live_and_test_keys_count_together(start: Start, database: asyncpg.Connection) -> None:
    account = await sign_up(await start(keys_per_account_max=5))
    answers = [await _create(account, environment) for environment in ("live", "test", "live", "test", "live", "test")]
    assert [answer.status_code for answer in answers] == [201] * 5 + [409]
    assert (answers[5].json()["code"], answers[5].json()["title"]) == ("key_limit_reached", "Conflict")
    assert (await _create(account, "live")).status_code == 409
    assert await _unrevoked(database, account) == 5


async def test_revoking_a_key_allows_one_more(start: Start, database: asyncpg.Connection) -> None:
    account = await sign_up(await start(keys_per_account_max=2))
    first, _ = await account.create_key(), await account.create_key()
    await account.revoke_key(first)
    assert [(await _create(account)).status_code for _ in range(2)] == [201, 409]
    assert await _unrevoked(database, account) == 2


async def test_each_account_has_its_own_maximum_of_keys(start: Start) -> None:
    client = await start(keys_per_account_max=1)
    full, other = await sign_up(client), await sign_up(client)
    assert [(await _create(account)).status_code for account in (full, full, other)] == [201, 409, 201]


async def test_50_parallel_creates_are_no_more_than_the_cap(start: Start, database: asyncpg.Connection) -> None:
    account = await sign_up(await start(keys_per_account_max=5))
    answers = await asyncio.gather(*(_create(account) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {201: 5, 409: 45}
    assert await _unrevoked(database, account) == 5


async def test_by_default_50_parallel_creates_stop_at_the_hundredth_key(
    account: Account, database: asyncpg.Connection
) -> None:
    await database.execute(_ALL_BUT_ONE, account.id)
    answers = await asyncio.gather(*(_create(account) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 49}
    assert await _unrevoked(database, account) == 100
