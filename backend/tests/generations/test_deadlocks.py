"""A late settlement and the take-over of its claim wait for each other in no order of events."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.core.security import new_timed_id
from app.generations.ledger import statements
from tests.harness import Account, Key, until_waited_for
from tests.version_before.statements import SETTLE, TAKE_OVER

SCOPE = bytes(range(32))
_GENERATION = """
    insert into generations (id, request_id, account_id, environment, key_id, prompt, size, format, model, provider,
      status, lease, lease_until)
    select $1, $1, account_id, environment, id, 'A cute banana', '64x64', 'png', 'nano-banana', 'stub', 'processing',
      $3, now() - interval '1 second' from api_keys where id = $2
"""
_CLAIM = """
    insert into claims (scope, fingerprint, generation_id, lease_until)
    values ($1, $1, $2, now() - interval '1 second')
"""


class Call(NamedTuple):
    """A statement and its arguments."""

    text: str
    arguments: list[object]


class Lapsed(NamedTuple):
    """A request with an Idempotency-Key whose lease is over, and that its worker settles nevertheless."""

    id: str
    key: Key
    lease: UUID

    def settlement(self) -> Call:
        values = {"id": [self.id], "request_id": [self.id], "key_id": [self.key.id], "lease": [self.lease]}
        unknown = {name: [None] for name in ("error", "route", "provider", "tries", "cost", "provider_request_id")}
        arguments = statements.SETTLE.arguments({**values, **unknown, "scope": [SCOPE]})
        return Call(statements.SETTLE.text, list(arguments))

    def take_over(self) -> Call:
        return Call(statements.TAKE_OVER.text, list(statements.TAKE_OVER.arguments({"scope": SCOPE})))

    def settlement_before(self) -> Call:
        counted_by_model = SETTLE.replace("on conflict (key_id, day)", "on conflict (key_id, day, model)")
        return Call(counted_by_model, [[self.id], [self.id], [self.key.id], ["delivered"], [SCOPE]])

    def take_over_before(self) -> Call:
        return Call(TAKE_OVER, [SCOPE])


@pytest.fixture
async def lapsed(database: asyncpg.Connection, account: Account) -> AsyncIterator[Lapsed]:
    key, lease = await account.create_key(), uuid4()
    generation_id = new_timed_id("gen", now=0)
    await database.execute(_GENERATION, generation_id, key.id, lease)
    await database.execute(_CLAIM, SCOPE, generation_id)
    yield Lapsed(generation_id, key, lease)
    await database.execute("delete from claims where scope = $1", SCOPE)
    await database.execute("delete from usage where key_id = $1", key.id)
    await database.execute("delete from generations where id = $1", generation_id)


async def _queued_behind(database: asyncpg.Connection, lapsed: Lapsed, url: str, *calls: Call) -> list[str]:
    """What each call ends with, "rows" or the name of an error. One after the other, each on a connection of its own,
    they wait for a transaction that holds the generation's row.
    """
    connections = [await connect_for_writing(url) for _ in calls]
    async with database.transaction():
        await database.execute("select from generations where id = $1 for update", lapsed.id)
        running = []
        for connection, call in zip(connections, calls, strict=True):
            running.append(asyncio.create_task(connection.fetch(call.text, *call.arguments)))
            await until_waited_for(database, holder=None if len(running) == 1 else connections[0].get_server_pid())
    results = await asyncio.gather(*running, return_exceptions=True)
    for connection in connections:
        await connection.close()
    return [type(each).__name__ if isinstance(each, BaseException) else "rows" for each in results]


async def test_a_settlement_and_a_take_over_that_wait_for_one_generation_both_succeed(
    database: asyncpg.Connection, lapsed: Lapsed, database_url: str
) -> None:
    calls = lapsed.settlement(), lapsed.take_over()
    assert await _queued_behind(database, lapsed, database_url, *calls) == ["rows", "rows"]
    status = await database.fetchval("select status from generations where id = $1", lapsed.id)
    assert status == "delivered", "the settlement came first"


async def test_a_take_over_before_a_settlement_both_succeed_and_the_generation_is_lost(
    database: asyncpg.Connection, lapsed: Lapsed, database_url: str
) -> None:
    calls = lapsed.take_over(), lapsed.settlement()
    assert await _queued_behind(database, lapsed, database_url, *calls) == ["rows", "rows"]
    assert await database.fetchval("select status from generations where id = $1", lapsed.id) == "lost"
    assert await database.fetchval("select count(*) from claims where scope = $1", SCOPE) == 0


async def test_this_test_finds_the_deadlock_of_the_order_of_the_version_before(
    database: asyncpg.Connection, lapsed: Lapsed, database_url: str
) -> None:
    calls = lapsed.settlement_before(), lapsed.take_over_before()
    outcomes = await _queued_behind(database, lapsed, database_url, *calls)
    assert sorted(outcomes) == ["DeadlockDetectedError", "rows"]
