"""Failures while recording: a success is on disk, and a refused generation is never recorded."""

import asyncio
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any

import asyncpg
import httpx2
import pytest
from app.core.db import Connect, connect_for_writing
from app.core.errors import Invalid, Unavailable
from app.generations.errors import OutcomeUnknown
from app.generations.ledger import Ledger
from app.generations.ledger.connection import Rows, StatementRefusedError
from app.generations.ledger.queue import IdempotencyClaim, PendingRecord, Recorded
from app.generations.ledger.statements import FIND_RECORDED, RECORD, Statement
from app.generations.ledger.writer import Writer
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN, nonzero
from tests.features.usage.recorded import (
    assert_nothing_recorded,
    ids,
    locked,
    new_record,
    outcomes,
    total,
    until_waiting,
)
from tests.harness import Account, Key, generate
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, head

_COUNTER = "insert into usage (key_id, day, pictures) values ($1, (now() at time zone 'UTC')::date, 0)"
POISON = ["a\0b", "a\ud800b"]


def _kinds(told: Sequence[object]) -> list[type]:
    return [type(each) for each in told]


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_a_generation_that_cannot_be_stored_fails_alone(
    ledger: Ledger, key: Key, database: asyncpg.Connection, place: int
) -> None:
    good = [new_record(key) for _ in range(6)]
    records = [*good[:place], *(new_record(key, prompt=prompt) for prompt in POISON), *good[place:]]
    told = await outcomes(ledger, *records)
    assert _kinds(told) == [Invalid if record.prompt in POISON else Recorded for record in records]
    assert await ids(database, key) == {record.id for record in good}
    assert await total(database, key) == 6


async def test_a_locked_key_row_delays_only_calls_of_that_key(
    database_url: str, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    # Halving the batch to find the key would take a lock timeout for each half, longer than the deadline.
    ledger = Ledger(Writer(partial(connect_for_writing, database_url)), queue_max=100, deadline_seconds=5)
    ledger.open()
    free = [await account.create_key() for _ in range(3)]
    async with locked(database, key):
        told = await outcomes(ledger, *(new_record(each) for each in (key, *free * 32, key)))
        assert _kinds(told) == [Unavailable, *[Recorded] * 96, Unavailable]
        assert [await total(database, each) for each in free] == [32, 32, 32]
    await ledger.record(new_record(free[0]))
    await ledger.close()
    await assert_nothing_recorded(database, key)


@pytest.mark.usefixtures("patience")
async def test_a_full_queue_is_503_and_no_refused_generation_is_recorded(
    start: Start, key: Key, database: asyncpg.Connection
) -> None:
    client = await start(record_queue_max=1, record_deadline_seconds=60)
    async with locked(database, key):
        sent = asyncio.ensure_future(generate(client, key))
        await until_waiting(database)
        rest = [asyncio.ensure_future(generate(client, key)) for _ in range(5)]
        for refused in islice(asyncio.as_completed(rest), 4):
            check_problem(await refused, 503, "unavailable")
    assert (await sent).status_code == 200
    [waited] = [each for each in await asyncio.gather(*rest) if each.status_code == 200]
    last = await generate(client, key)
    assert await ids(database, key) == {each.json()["id"] for each in (await sent, waited, last)}
    assert await total(database, key) == 3


@pytest.mark.usefixtures("patience")
async def test_past_the_deadline_queued_generations_are_never_recorded_and_sent_ones_are_unknown(
    start: Start, key: Key, database: asyncpg.Connection
) -> None:
    client = await start(record_deadline_seconds=1, metrics_token=METRICS_TOKEN)
    async with locked(database, key):
        sent = asyncio.ensure_future(generate(client, key, prompt="sent"))
        await until_waiting(database)
        waiting = await asyncio.gather(*(generate(client, key, prompt="waiting") for _ in range(5)))
        for answer in waiting:
            check_problem(answer, 503, "unavailable")
        check_problem(await sent, 503, "outcome_unknown")
    assert await nonzero(client, "ledger_failures") == {"unavailable": 5, "unknown": 1}
    assert (await generate(client, key, prompt="after")).status_code == 200
    prompts = await database.fetch("select prompt from generations where key_id = $1 order by id", key.id)
    assert [row["prompt"] for row in prompts] == ["sent", "after"]
    assert await total(database, key) == 2


async def test_a_call_refused_while_there_is_no_connection_is_never_recorded(
    database_url: str, key: Key, database: asyncpg.Connection
) -> None:
    there = asyncio.Event()

    async def connect() -> asyncpg.Connection:
        await there.wait()
        return await connect_for_writing(database_url)

    ledger = Ledger(Writer(connect), queue_max=100, deadline_seconds=0.2)
    ledger.open()
    assert _kinds(await outcomes(ledger, new_record(key), new_record(key))) == [Unavailable, Unavailable]
    there.set()
    await ledger.close()
    await assert_nothing_recorded(database, key)


async def test_a_call_refused_while_another_half_of_its_batch_is_written_is_never_recorded(
    patience: Connect, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    ledger, other = Ledger(Writer(patience), queue_max=100, deadline_seconds=1), await account.create_key()
    ledger.open()
    # The bad row fails the batch at once. Its halves are written one after the other, and the first has to wait.
    records = new_record(key), new_record(other, prompt="\0"), new_record(other), new_record(other)
    async with locked(database, key):
        told = await outcomes(ledger, *records)
        assert _kinds(told) == [OutcomeUnknown, Unavailable, Unavailable, Unavailable]
    await ledger.close()
    assert await total(database, key) == 1
    await assert_nothing_recorded(database, other)


@pytest.mark.parametrize("sqlstate", ["40P01", "40001"])
@pytest.mark.parametrize("refused", [RECORD, FIND_RECORDED], ids=["record", "find_recorded"])
async def test_a_deadlock_or_a_serialization_failure_is_retried(
    patience: Connect, key: Key, database: asyncpg.Connection, *, refused: Statement, sqlstate: str
) -> None:
    class Refused(Writer):
        refusals = iter([sqlstate, sqlstate])

        async def _fetch(self, connection: asyncpg.Connection, statement: Statement, **values: Any) -> Rows:
            if statement is refused and (state := next(self.refusals, None)):
                raise StatementRefusedError(state)
            return await super()._fetch(connection, statement, **values)

    ledger = Ledger(Refused(patience), queue_max=100, deadline_seconds=60)
    ledger.open()
    records = [new_record(key) for _ in range(3)]
    for record in records:
        record.claim = IdempotencyClaim(sha256(key.raw.encode()).digest(), [bytes(32)])
    first, *others = await outcomes(ledger, *records)
    await ledger.close()
    assert isinstance(first, Recorded)
    assert others == [Recorded(first.ids, first.created_at, is_replay=True)] * 2
    assert await total(database, key) == 1


async def test_a_real_deadlock_is_retried_without_an_error(
    patient: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    await database.execute("set deadlock_timeout = '1h'")  # so that the other transaction is the one that is aborted
    async with database.transaction():
        await database.execute(_COUNTER, key.id)
        call = asyncio.ensure_future(generate(patient, key))
        await until_waiting(database)
        await database.execute("select from api_keys where id = $1 for no key update", key.id)
        await database.execute("delete from usage where key_id = $1", key.id)
    assert (await call).status_code == 200
    assert await total(database, key) == 1


async def test_an_unexpected_exception_is_outcome_unknown_and_the_next_call_is_recorded(
    ledger: Ledger, key: Key, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_writer: Writer, _work: Sequence[PendingRecord]) -> Sequence[PendingRecord]:
        raise RuntimeError

    with monkeypatch.context() as context:
        context.setattr(Writer, "write", fail)
        assert _kinds(await outcomes(ledger, new_record(key))) == [OutcomeUnknown]
    assert ledger.is_alive
    await ledger.record(new_record(key))
    assert await total(database, key) == 1


async def test_a_ledger_whose_writer_has_died_refuses_calls_and_is_not_ready(
    start: Start, key: Key, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(_writer: Writer, _work: Sequence[PendingRecord]) -> Sequence[PendingRecord]:
        raise asyncio.CancelledError

    with monkeypatch.context() as context:
        context.setattr(Writer, "write", die)
        client = await start(record_deadline_seconds=1)
        check_problem(await generate(client, key), 503, "unavailable")
    check_problem(await generate(client, key), 503, "unavailable")
    check_problem(await client.get("/ready"), 503, "unavailable")
    await assert_nothing_recorded(database, key)


async def test_queued_generations_are_recorded_when_the_ledger_closes(
    patience: Connect, key: Key, database: asyncpg.Connection
) -> None:
    ledger = Ledger(Writer(patience), queue_max=100, deadline_seconds=60)
    ledger.open()
    async with locked(database, key):
        sent = asyncio.ensure_future(outcomes(ledger, new_record(key)))
        await until_waiting(database)
        waiting = [asyncio.ensure_future(ledger.record(new_record(key))) for _ in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(ledger.close())
        await asyncio.sleep(0)
        assert not closing.done()
    await closing
    assert _kinds([*await sent, *await asyncio.gather(*waiting)]) == [Recorded] * 6
    assert await total(database, key) == 6
    with pytest.raises(Unavailable):
        await ledger.record(new_record(key))


async def test_a_client_that_disconnects_does_not_change_what_is_recorded(
    patient: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    body, other = b'{"prompt": "A cute banana"}', await account.create_key()
    headers = [*key.headers.items(), JSON_TYPE, ("Content-Length", str(len(body)))]
    async with locked(database, key):
        _, writer = await asyncio.open_connection(patient.base_url.host, patient.base_url.port)
        writer.write(head("POST", "/v1/generate", headers) + body)
        await until_waiting(database)
        writer.close()
        await writer.wait_closed()
        assert (await patient.get("/health")).status_code == 200  # by now the server has seen the disconnect
    assert (await generate(patient, other)).status_code == 200  # queued behind the abandoned call
    assert len(await ids(database, key)) == 1
    assert await total(database, key) == 1


async def test_an_idle_ledger_opens_no_connection() -> None:
    asked: list[str] = []

    async def connect() -> asyncpg.Connection:
        asked.append("a connection")
        raise ConnectionRefusedError

    ledger = Ledger(Writer(connect), queue_max=1, deadline_seconds=1)
    ledger.open()
    await asyncio.sleep(0)
    await ledger.close()
    assert asked == []
