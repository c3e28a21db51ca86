"""What the list of an account's generations reads, and the look at one, in a database where the planner knows these
rows alone.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tests.conftest import Start
from tests.harness import Key, generate
from tests.version_before.history import connected

_REVOKED_KEYS = """
    insert into api_keys (id, user_id, name, environment, prefix, key_hash, revoked_at)
    select 'key_' || substr(md5(n || id), 1, 20), user_id, 'old', environment, prefix, sha256((n || id)::bytea), now()
    from api_keys, generate_series(1, 1000) n where id = $1
"""
_MANY = 1000
_DELIVERED = """
    insert into generations
      (id, request_id, account_id, environment, key_id, prompt, size, provider, status, delivered_at)
    select left(id, 14) || substr(md5(n || id), 1, 16), id, account_id, environment, key_id, '', size, provider,
      'delivered', now()
    from generations, generate_series(1, $2::int) n where id = $1
"""


@pytest.fixture
async def client(start: Start, new_database_url: str) -> httpx2.AsyncClient:
    """An application with a database of the test's own: the rows of other tests would change the plans."""
    return await start(database_url=SecretStr(new_database_url))


@pytest.fixture
async def database(new_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(new_database_url) as connection:
        yield connection


_OF_OTHER_TIMES = """
    insert into generations
      (id, request_id, account_id, environment, key_id, prompt, size, provider, status, delivered_at)
    select id_of.new, id_of.new, account_id, environment, key_id, '', size, provider, 'delivered', now()
    from generations, generate_series(1, $2::int) n,
      lateral (select left(id, 8) || substr(md5(n || id), 1, 26) as new) id_of where id = $1
"""


def _rows_read(plan: dict[str, Any], table: str) -> int:
    """The rows that the nodes of a plan produced or dropped: all, or those that read tables of names that begin so."""
    rows: float = sum(
        plan.get(each, 0) for each in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Join Filter")
    )
    of_children = sum(_rows_read(each, table) for each in plan.get("Plans", ()))
    is_of_table: bool = plan.get("Relation Name", "").startswith(table)
    return int(rows * plan["Actual Loops"]) * is_of_table + of_children


async def _sent(
    client: httpx2.AsyncClient, key: Key, path: str = "", *, word: str = "LATERAL"
) -> tuple[str, Sequence[object]]:
    """The statement with this word that lists an account's generations, or looks one up, and its parameters."""
    sent: list[tuple[str, Any]] = []

    def keep(*execution: Any) -> None:
        _, _, statement, parameters, *_ = execution
        if word in statement:
            sent.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        assert (await client.get(f"/v1/generations{path}", headers=key.headers)).status_code == 200
    finally:
        event.remove(Engine, "before_cursor_execute", keep)
    [(statement, parameters)] = sent
    return statement, parameters


async def _rows_of(
    database: asyncpg.Connection, sent: tuple[str, Sequence[object]], *, mode: str = "auto", table: str = ""
) -> int:
    """The rows that the statement reads, prepared, with the plans of this `plan_cache_mode`."""
    statement, parameters = sent
    await database.execute("analyze api_keys, generations")
    async with database.transaction():
        await database.execute(f"set local plan_cache_mode = {mode}")
        await database.execute(f"prepare listed as {statement}")
        values = ", ".join(f"'{{{','.join(each)}}}'" if isinstance(each, list) else f"'{each}'" for each in parameters)
        [(plan,)] = await database.fetch(f"explain (analyze, format json) execute listed ({values})")
        await database.execute("deallocate listed")
    return _rows_read(json.loads(plan)[0]["Plan"], table)


async def test_a_list_of_generations_reads_no_more_rows_with_a_thousand_revoked_keys(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    assert (await generate(client, key)).status_code == 200
    sent = await _sent(client, key)
    few = await _rows_of(database, sent)
    await database.execute(_REVOKED_KEYS, key.id)
    assert await _rows_of(database, sent) <= few


async def test_a_list_by_status_does_not_read_what_was_delivered(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    ended = (await generate(client, key)).json()["id"]
    await database.execute("update generations set status = 'failed', delivered_at = null where id = $1", ended)
    await database.execute(_DELIVERED, ended, _MANY)
    for wanted in (
        "failed",
        "lost,cancelled",
        "queued,processing",
        "failed,queued",
        "failed,lost,cancelled,processing",
    ):
        sent = await _sent(client, key, f"?status={wanted}")
        for mode in ("force_custom_plan", "force_generic_plan"):
            assert await _rows_of(database, sent, mode=mode, table="generations") < _MANY / 10, (wanted, mode)


async def test_a_look_at_a_generation_reads_no_others_of_its_account(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    seen = (await generate(client, key)).json()["id"]
    await database.execute(_OF_OTHER_TIMES, seen, _MANY)
    sent = await _sent(client, key, f"/{seen}", word="unnest")
    for mode in ("force_custom_plan", "force_generic_plan"):
        assert await _rows_of(database, sent, mode=mode, table="generations") < _MANY / 10, mode
