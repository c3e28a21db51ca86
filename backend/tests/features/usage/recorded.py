"""The contents of ledger and counters, and ways to delay or disconnect the ledger's writer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date

import asyncpg
from app.core.security import new_timed_id
from app.generations.ledger import Ledger
from app.generations.ledger.queue import PendingRecord, Recorded
from sqlalchemy.engine import make_url
from tests.harness import Key, looks
from tests.standins.listening import listening

_COUNTED_AND_RECORDED = """
    select 'counted' as origin, day, model, pictures, list_amount, amount, cost from usage where key_id = $1
    union all
    select 'recorded', (delivered_at at time zone 'UTC')::date, model, count(*), sum(list_price), sum(price),
      coalesce(sum(cost), 0) from generations where key_id = $1 and status = 'delivered' group by 2, 3
"""
"""One statement, and so one moment: other connections write meanwhile."""


async def usage(database: asyncpg.Connection, key: Key) -> dict[date, int]:
    """How many images the key was counted by day. By day and model, count, prices, charges and costs must be those of
    its delivered generations.
    """
    found: dict[str, dict[tuple[date, str], Sequence[int]]] = {"counted": {}, "recorded": {}}
    for origin, day, model, *sums in await database.fetch(_COUNTED_AND_RECORDED, key.id):
        found[origin][day, model] = sums
    assert found["counted"] == found["recorded"]
    by_day: Counter[date] = Counter()
    for (day, _), (pictures, *_) in found["counted"].items():
        by_day[day] += pictures
    return by_day


async def total(database: asyncpg.Connection, key: Key) -> int:
    """The sum of the key's counters, which must equal its delivered generations."""
    return sum((await usage(database, key)).values())


async def ids(database: asyncpg.Connection, key: Key) -> set[str]:
    """The ids of the key's generations."""
    return {row["id"] for row in await database.fetch("select id from generations where key_id = $1", key.id)}


async def assert_nothing_recorded(database: asyncpg.Connection, key: Key) -> None:
    assert await usage(database, key) == {}
    assert await ids(database, key) == set()
    assert await database.fetchval("select last_used_at from api_keys where id = $1", key.id) is None


@asynccontextmanager
async def locked(database: asyncpg.Connection, key: Key) -> AsyncIterator[None]:
    """Locks the key's row by this connection: the ledger waits to record under the key."""
    async with database.transaction():
        await database.execute("select from api_keys where id = $1 for no key update", key.id)
        yield


async def until_waiting(database: asyncpg.Connection, count: int = 1) -> None:
    """Returns once this many backends of the database wait for locks."""
    waiting = """
        select count(distinct l.pid) from pg_locks l join pg_stat_activity a using (pid)
        where not l.granted and a.datname = current_database()
    """
    for _ in looks():
        await database.execute("select pg_stat_clear_snapshot()")  # within a transaction the view is a snapshot
        if await database.fetchval(waiting) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("they do not wait")


def new_record(key: Key, *, prompt: str = "A cute banana", now: float = 0) -> PendingRecord:
    """One image of a key that nobody has changed, which is recorded as delivered."""
    return PendingRecord(
        ids=[new_timed_id("gen", now=now)],
        key_id=key.id,
        revision=0,
        prompt=prompt,
        size="64x64",
        format="png",
        model="nano-banana",
        provider="stub",
    )


async def outcomes(ledger: Ledger, *records: PendingRecord) -> list[Recorded | BaseException]:
    """The outcomes of records that are queued together, before any is written."""
    return await asyncio.gather(*(ledger.record(record) for record in records), return_exceptions=True)


class Line:
    """A loopback port that forwards to the database, and can drop its answers."""

    def __init__(self, database_url: str) -> None:
        self._target = make_url(database_url)
        self._drop_next = False
        self.cut = asyncio.Event()
        self.mended = asyncio.Event()
        self.mended.set()
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Forwards to the database. New connections wait while the line is broken."""
        async with listening(self._lead) as port:
            url = self._target.set(host="127.0.0.1", port=port, query={"ssl": "disable"})
            self.url = url.render_as_string(hide_password=False)
            yield

    def lose_the_next_answer(self) -> None:
        """Drops the database's next answer and closes its connection; the line stays broken until `mended` is set."""
        self._drop_next = True
        self.mended.clear()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.mended.wait()
        folder, port = self._target.query.get("host"), self._target.port or 5432
        if folder:
            there = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(self._target.host, port)
        to_there = asyncio.create_task(self._pour(reader, there[1]))
        try:
            await self._pour(there[0], writer, answers=True)
        finally:
            to_there.cancel()
            for each in (writer, there[1]):
                each.close()
                with suppress(ConnectionError):
                    await each.wait_closed()

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if answers and self._drop_next:
                    self._drop_next = False
                    self.cut.set()
                    return
                writer.write(data)
                await writer.drain()
