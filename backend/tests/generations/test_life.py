"""The life of a generation: admission is checked when it is recorded, and only its worker ends it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from app.generations.errors import LeaseLostError
from app.generations.ledger import Ledger
from app.generations.ledger.queue import IdempotencyClaim, ImageEnd, Lease, PendingRecord, PendingSettlement
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tests.features.usage.recorded import new_record, total
from tests.harness import Key, generate, looks
from tests.problems import check_problem

_STATUS = "select status from generations where id = $1"
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


def _leased(key: Key, *, seconds: float = 60) -> PendingRecord:
    record = new_record(key)
    record.lease = Lease(uuid4(), seconds)
    return record


async def _until(database: asyncpg.Connection, generation_id: str, status: str) -> None:
    for _ in looks():
        if await database.fetchval(_STATUS, generation_id) == status:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"it does not become {status}")


async def test_a_key_is_refused_as_soon_as_it_expires_though_its_caller_is_cached(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    assert (await generate(client, key)).status_code == 200
    await database.execute("update api_keys set expires_at = now() + interval '1 hour' where id = $1", key.id)
    assert (await generate(client, key)).status_code == 200
    await database.execute("update api_keys set expires_at = now() where id = $1", key.id)
    check_problem(await generate(client, key), 401, "invalid_api_key")
    assert await total(database, key) == 2


async def test_a_change_of_what_a_key_may_do_holds_from_its_next_generation_though_its_caller_is_cached(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    assert '"key";q=1000000;w=1' in (await generate(client, key)).headers["ratelimit-policy"]
    await database.execute("update api_keys set generate_limit = '77/hour' where id = $1", key.id)
    assert (await generate(client, key)).status_code == 200  # recorded after the caller was looked up again
    assert '"key";q=77;w=3600' in (await generate(client, key)).headers["ratelimit-policy"]
    assert await total(database, key) == 3


async def test_only_the_worker_that_has_the_lease_settles(
    ledger: Ledger, key: Key, database: asyncpg.Connection
) -> None:
    record = _leased(key)
    await ledger.record(record)
    stranger = _leased(key)
    stranger.ids = record.ids
    with pytest.raises(LeaseLostError):
        await ledger.settle(PendingSettlement(recorded=stranger, ends={}))
    assert await database.fetchval(_STATUS, record.id) == "processing"
    assert await total(database, key) == 0
    await ledger.settle(PendingSettlement(recorded=record, ends={}))
    assert await database.fetchval(_STATUS, record.id) == "delivered"
    assert await total(database, key) == 1


@pytest.mark.parametrize("delivered", [0, 1, 2, 3])
async def test_of_several_images_those_that_were_delivered_count_and_are_replayed(
    ledger: Ledger, key: Key, database: asyncpg.Connection, delivered: int
) -> None:
    first = _leased(key)
    first.ids = [*first.ids, *(new_record(key).id for _ in range(2))]
    first.claim = IdempotencyClaim(uuid4().bytes * 2, [uuid4().bytes * 2])
    await ledger.record(first)
    failed = dict.fromkeys(first.ids[: 3 - delivered], ImageEnd("provider_failed"))
    await ledger.settle(PendingSettlement(recorded=first, ends=failed))
    assert await total(database, key) == delivered
    again = _leased(key)
    again.claim = first.claim
    recorded = await ledger.record(again)
    assert (recorded.is_replay, list(recorded.ids)) == (
        (True, list(first.ids[3 - delivered :])) if delivered else (False, list(again.ids))
    )


async def test_a_settlement_in_part_that_is_sent_again_changes_nothing_and_one_under_another_lease_is_refused(
    ledger: Ledger, key: Key, database: asyncpg.Connection
) -> None:
    record, stranger = _leased(key), _leased(key)
    record.ids = stranger.ids = sorted(new_record(key).id for _ in range(3))
    await ledger.record(record)
    ends = {record.ids[0]: ImageEnd("provider_failed"), record.ids[2]: ImageEnd("provider_timeout")}
    for _ in range(2):
        await ledger.settle(PendingSettlement(recorded=record, ends=ends))
        with pytest.raises(LeaseLostError):
            await ledger.settle(PendingSettlement(recorded=stranger, ends=ends))
        rows = await database.fetch("select status, error from generations where key_id = $1 order by id", key.id)
        assert [tuple(row) for row in rows] == [
            ("failed", "provider_failed"),
            ("delivered", None),
            ("failed", "provider_timeout"),
        ]
        assert await total(database, key) == 1


@pytest.mark.parametrize("with_claim", [False, True], ids=["no idempotency key", "idempotency key"])
async def test_a_generation_whose_worker_died_is_lost_when_its_lease_is_over(
    client: httpx2.AsyncClient, ledger: Ledger, key: Key, database: asyncpg.Connection, *, with_claim: bool
) -> None:
    assert (await client.get("/health")).status_code == 200  # an application's ledger sweeps
    record = _leased(key, seconds=0.1)
    if with_claim:
        record.claim = IdempotencyClaim(uuid4().bytes * 2, [uuid4().bytes * 2])
    await ledger.record(record)
    await _until(database, record.id, "lost")
    with pytest.raises(LeaseLostError):
        await ledger.settle(PendingSettlement(recorded=record, ends={}))
    assert await database.fetchval(_STATUS, record.id) == "lost"
    assert await total(database, key) == 0


def _rows_read(plan: dict[str, Any], table: str) -> int:
    """The rows that the nodes of a plan produced or dropped: all, or those that read tables of names that begin so."""
    rows: float = sum(
        plan.get(each, 0) for each in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Join Filter")
    )
    of_children = sum(_rows_read(each, table) for each in plan.get("Plans", ()))
    is_of_table: bool = plan.get("Relation Name", "").startswith(table)
    return int(rows * plan["Actual Loops"]) * is_of_table + of_children


async def _sent_list(client: httpx2.AsyncClient, key: Key, query: str = "") -> tuple[str, Sequence[object]]:
    """The statement that lists an account's generations, and its parameters."""
    sent: list[tuple[str, Any]] = []

    def keep(*execution: Any) -> None:
        _, _, statement, parameters, *_ = execution
        if "LATERAL" in statement:
            sent.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        assert (await client.get(f"/v1/generations{query}", headers=key.headers)).status_code == 200
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
        values = ", ".join(f"'{each}'" for each in parameters)
        [(plan,)] = await database.fetch(f"explain (analyze, format json) execute listed ({values})")
        await database.execute("deallocate listed")
    return _rows_read(json.loads(plan)[0]["Plan"], table)


async def test_a_list_of_generations_reads_no_more_rows_with_a_thousand_revoked_keys(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    assert (await generate(client, key)).status_code == 200
    sent = await _sent_list(client, key)
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
        sent = await _sent_list(client, key, f"?status={wanted}")
        for mode in ("force_custom_plan", "force_generic_plan"):
            assert await _rows_of(database, sent, mode=mode, table="generations") < _MANY / 10, (wanted, mode)
