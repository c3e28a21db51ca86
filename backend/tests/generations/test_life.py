"""The life of a generation: admission is checked when it is recorded, and only its worker ends it."""

import asyncio
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from app.generations.errors import LeaseLostError
from app.generations.ledger import Ledger
from app.generations.ledger.queue import IdempotencyClaim, ImageEnd, Lease, PendingRecord, PendingSettlement
from tests.features.usage.recorded import new_record, total
from tests.harness import Key, generate, looks
from tests.problems import check_problem

_STATUS = "select status from generations where id = $1"


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


async def test_a_generation_whose_worker_died_is_lost_when_its_lease_is_over(
    client: httpx2.AsyncClient, ledger: Ledger, key: Key, database: asyncpg.Connection
) -> None:
    assert (await client.get("/health")).status_code == 200  # an application's ledger sweeps
    records = [_leased(key, seconds=0.1) for _ in range(2)]
    records[1].claim = IdempotencyClaim(uuid4().bytes * 2, [uuid4().bytes * 2])
    for record in records:
        await ledger.record(record)
    for record in records:
        await _until(database, record.id, "lost")
        with pytest.raises(LeaseLostError):
            await ledger.settle(PendingSettlement(recorded=record, ends={}))
        assert await database.fetchval(_STATUS, record.id) == "lost"
    assert await total(database, key) == 0
