"""Months that are older than the operator keeps them: dropped whole, counted still, and never half known."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from app.assembly import open_services
from app.core.db import create_engine
from app.core.errors import Unavailable
from app.core.security import time_prefix
from app.core.settings import Settings
from app.generations.prune import ADVISORY_LOCK, Pruned, Pruner
from app.generations.reconcile import find_differences
from app.services import Services
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError
from tests.conftest import Start
from tests.features.usage.recorded import new_record
from tests.harness import Key, looks, running, sign_up
from tests.test_cli import nanobanana_in_here
from tests.version_before.history import connected

DAYS = 60
_HOUR = timedelta(hours=1)
_MONTHS = """
alter table generations detach partition {first};
create table generations_old partition of generations for values from (minvalue) to ('{bound}');
create table generations_young partition of generations for values from ('{bound}') to ('{high}');
drop table {first}
"""
_FIRST = r"""
select c.relname, substring(pg_get_expr(c.relpartbound, c.oid) from $$TO \('(.*)'\)$$) from pg_class c
where c.relname like 'generations_before_%' and c.relkind = 'r'
"""
_INSERT = """
insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status,
  created_at, delivered_at, list_price, cost)
select $1, $1, account_id, environment, id, 'A cute banana', '64x64', $3, $4, $5::timestamptz,
  case when $4 = 'delivered' then $5::timestamptz + $6::interval end, 40000, 39000 from api_keys where id = $2
"""
_COUNT = """
insert into usage (key_id, day, model, pictures, list_amount, cost)
select key_id, (delivered_at at time zone 'UTC')::date, model, count(*), sum(list_price), sum(cost) from generations
where status = 'delivered' group by 1, 2, 3
"""


@dataclass
class Ledger:
    """A database whose oldest partition is due since an hour, and everything that is in it. The day on which it ends
    is divided: the first rows of the next partition are of that day too.
    """

    url: str
    database: asyncpg.Connection
    services: Services
    key: Key
    bound: datetime
    old: list[str] = field(default_factory=list)
    young: list[str] = field(default_factory=list)

    def pruner(self, *, days: int = DAYS) -> Pruner:
        return Pruner(self.services.generations, self.url, days, self.services.metrics)

    async def add(
        self, at: datetime, *, status: str = "delivered", provider: str = "stub", later: timedelta = timedelta(0)
    ) -> str:
        made = f"{time_prefix('gen', at)}{len(self.old + self.young):020}"
        await self.database.execute(_INSERT, made, self.key.id, provider, status, at, later)
        return made

    async def left(self) -> list[str]:
        return [row["id"] for row in await self.database.fetch("select id from generations order by id")]

    async def usage(self) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self.database.fetch("select * from usage order by key_id, day, model")
        return rows

    async def until_nobody_prunes(self) -> None:
        """Returns once the server has noticed that a process is gone."""
        for _ in looks():
            if await self.database.fetchval(_IS_LOCKED, ADVISORY_LOCK) is None:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a process prunes")

    async def differences(self) -> int:
        """Of all days, as a comparison finds them that began before a month was dropped."""
        days = await self.database.fetch("select distinct day from usage")
        engine = create_engine(self.url, pool_size=1)
        async with engine.connect() as connection:
            found = [await find_differences(connection, day=day) for (day,) in days]
        await engine.dispose()
        return sum(map(len, found))


@pytest.fixture
async def aged(new_database_url: str, settings: Settings) -> AsyncIterator[Ledger]:
    changed = settings.model_copy(update={"database_url": SecretStr(new_database_url)})
    async with connected(new_database_url) as database, running(changed) as client, open_services(changed) as services:
        key = await (await sign_up(client)).create_key()
        bound = await database.fetchval("select now()") - timedelta(days=DAYS) - _HOUR
        [(first, high)] = await database.fetch(_FIRST)
        await database.execute(_MONTHS.format(first=first, bound=time_prefix("gen", bound), high=high))
        ledger = Ledger(new_database_url, database, services, key, bound)
        for days in (70, 63, 62, 62):
            ledger.old.append(await ledger.add(bound - timedelta(days=days - DAYS)))
        midnight = timedelta(days=1)  # drawn for so long that it was delivered on the next day
        ledger.old.append(await ledger.add(bound - timedelta(days=1, seconds=1), provider="gemini", later=midnight))
        ledger.old.append(await ledger.add(bound - _HOUR, status="lost"))
        for minutes in (1, 2, 60 * 24, 60 * 48):
            ledger.young.append(await ledger.add(bound + timedelta(minutes=minutes)))
        await database.execute(_COUNT)
        for made in ledger.old:
            await services.generations.store.put(f"{made}.png", b"an image")
        yield ledger


_IS_LOCKED = """
select 1 from pg_locks l join pg_database d on d.oid = l.database
where l.locktype = 'advisory' and d.datname = current_database() and (l.classid::bigint << 32 | l.objid::bigint) = $1
"""
_is_counted = ContextVar("_is_counted", default=False)
"""Whether statements are counted: of what is done within the block, and not of what the services do by themselves."""


@contextmanager
def killed_before(number: int) -> Iterator[list[str]]:
    """Ends the connection before the statement of this number, from 0, of all engines together, which is in the list
    then.
    """
    numbers, killed = count(), list[str]()

    def look(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if _is_counted.get() and next(numbers) == number:
            killed.append(statement)
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.terminate()

    event.listen(Engine, "before_cursor_execute", look)
    token = _is_counted.set(True)
    try:
        yield killed
    finally:
        _is_counted.reset(token)
        event.remove(Engine, "before_cursor_execute", look)


async def test_a_process_that_is_killed_before_any_statement_leaves_counters_that_reconcile_and_the_next_one_goes_on(
    aged: Ledger,
) -> None:
    usage, result = await aged.usage(), None
    for number in range(100):
        with killed_before(number) as killed, suppress(SQLAlchemyError):
            result = await aged.pruner().prune()
        if not killed:
            break
        assert await aged.left() == [*aged.old, *aged.young], f"something was dropped before {killed}"
        assert await aged.database.fetchval("select generations_kept_from from deployment") is None
        assert await aged.differences() == 0
        await aged.until_nobody_prunes()
    assert result == Pruned(["generations_old"], None)
    assert number > 20
    assert await aged.left() == aged.young
    assert (await aged.usage(), await aged.differences()) == (usage, 0)
    day_after = (aged.bound + timedelta(days=1)).date()
    assert await aged.database.fetchval("select generations_kept_from from deployment") == day_after
    store = aged.services.generations.store
    assert await store.get(f"{aged.old[4]}.png") is None, "of the one that a provider drew"
    assert await aged.pruner().prune() == Pruned([], None)


class Obstacle(NamedTuple):
    """Something by which a month is kept: statements that bring it about and end it, and a part of the reason."""

    make: str
    end: str
    reason: str


OBSTACLES = {
    "a generation that is being drawn": Obstacle(
        "update generations set status = 'processing', delivered_at = null where id = {oldest}",
        "update generations set status = 'delivered', delivered_at = created_at where id = {oldest}",
        "queued or processing",
    ),
    "an id that begins with the time of a wrong clock": Obstacle(
        "update generations set created_at = now() where id = {oldest}",
        "update generations set created_at = delivered_at where id = {oldest}",
        "younger than their ids",
    ),
    "a generation that was delivered long after its id was made": Obstacle(
        "update generations set delivered_at = now() where id = {oldest}",
        "update generations set delivered_at = created_at where id = {oldest}",
        "younger than their ids",
    ),
    "a claim": Obstacle(
        "insert into claims (scope, fingerprint, generation_id) select s, s, {oldest} from sha256('a') s",
        "delete from claims",
        "Idempotency-Key",
    ),
    "a claim for several images": Obstacle(
        "insert into claims (scope, fingerprint, generation_id, other_ids) select s, s, 'gen_z', array[{oldest}] "
        "from sha256('a') s",
        "delete from claims",
        "Idempotency-Key",
    ),
    "a count that is wrong": Obstacle(
        "update usage set pictures = pictures + 1 where day = (select min(day) from usage)",
        "update usage set pictures = pictures - 1 where day = (select min(day) from usage)",
        "usage differs from the ledger",
    ),
    "a row that has no partition": Obstacle(
        "alter table generations detach partition generations_old; "
        "alter table generations attach partition generations_old for values from ('gen_0') to ('{bound}'); "
        "insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status) "
        "select 'gen_', 'gen_', account_id, environment, key_id, prompt, size, provider, 'lost' from generations_old "
        "limit 1",
        "delete from generations_default; alter table generations detach partition generations_old; "
        "alter table generations attach partition generations_old for values from (minvalue) to ('{bound}')",
        "generations_default",
    ),
}


async def test_a_month_is_kept_while_anything_needs_it(aged: Ledger) -> None:
    """One obstacle after the other; nothing is dropped before the last of them has ended."""
    values = {"oldest": "(select min(id) from generations)", "bound": time_prefix("gen", aged.bound)}
    for name, obstacle in OBSTACLES.items():
        await aged.database.execute(obstacle.make.format(**values))
        dropped, reason = await aged.pruner().prune()
        assert (dropped, obstacle.reason in str(reason)) == ([], True), f"{name}: {reason}"
        await aged.database.execute(obstacle.end.format(**values))
    async with connected(aged.url) as reader:
        await reader.execute("begin; select count(*) from generations")
        assert "in use" in str((await aged.pruner().prune()).obstacle)
        assert await aged.left() == [*aged.old, *aged.young]
        assert await aged.database.fetchval("select generations_kept_from from deployment") is None
    assert (await aged.pruner().prune()).dropped == ["generations_old"]


async def test_of_processes_that_prune_at_once_one_does(aged: Ledger) -> None:
    results = await asyncio.gather(*(aged.pruner().prune() for _ in range(3)))
    assert sorted(map(list, (each.dropped for each in results))) == [[], [], ["generations_old"]]
    assert [each.obstacle for each in results if not each.dropped] == ["Another process prunes the ledger."] * 2


async def test_a_server_prunes_by_itself_and_an_id_of_a_dropped_month_is_not_recorded_again(
    aged: Ledger, start: Start
) -> None:
    usage = await aged.usage()
    client = await start(database_url=aged.url, ledger_retention_days=DAYS)
    for _ in looks():
        if await aged.database.fetchval("select to_regclass('generations_old') is null"):
            break
        await asyncio.sleep(0.01)
    again = new_record(aged.key, now=(aged.bound - timedelta(days=3)).timestamp())
    with pytest.raises(Unavailable):
        await aged.services.generations.ledger.record(again)
    assert await aged.left() == aged.young
    assert await aged.usage() == usage
    headers = aged.key.headers
    for path in (f"/v1/generations/{aged.old[0]}", f"/v1/images/{aged.old[0]}.png"):
        assert (await client.get(path, headers=headers)).status_code == 404
    listed = await client.get("/v1/generations", headers=headers)
    assert [each["id"] for each in listed.json()] == aged.young[::-1]


async def test_a_closed_month_takes_no_new_rows_and_its_images_can_still_be_deleted(
    aged: Ledger, settings: Settings
) -> None:
    claim = "insert into claims (scope, fingerprint, generation_id) select s, s, $1 from sha256('a') s"
    await aged.database.execute(claim, aged.old[0])
    assert "Idempotency-Key" in str((await aged.pruner().prune()).obstacle)  # after it has been closed
    with pytest.raises(Unavailable):
        await aged.services.generations.ledger.record(new_record(aged.key, now=aged.bound.timestamp() - 60))
    changed = settings.model_copy(update={"database_url": SecretStr(aged.url)})
    async with running(changed) as client:
        deleted = await client.delete(f"/v1/generations/{aged.old[0]}", headers=aged.key.headers)
    assert deleted.status_code == 204


async def test_months_that_have_been_due_for_long_are_dropped_by_an_operator_alone(
    aged: Ledger, tmp_path: Path
) -> None:
    """As with a clock of the database that jumps ahead, or a setting that is new."""

    def command(*arguments: str, status: int = 0) -> list[str]:
        retention = {"DATABASE_URL": aged.url, "LEDGER_RETENTION_DAYS": str(DAYS - 2)}
        done = nanobanana_in_here(tmp_path, *arguments, **retention)
        assert (done.returncode, done.stderr) == (status, ""), done.stdout
        return done.stdout.splitlines()

    pruner = aged.pruner(days=DAYS - 2)
    for _ in range(2):
        assert "due for more than a day" in str((await pruner.prune()).obstacle)
    assert b"nanobanana_prunes_stopped_total 2.0" in aged.services.metrics.text()
    due = f"Older than {DAYS - 2} days by the database's clock: generations_old."
    assert await asyncio.to_thread(command, "ledger", "prune") == [due, "Run it with --yes to drop them."]
    assert await aged.left() == [*aged.old, *aged.young]
    await aged.database.execute("update usage set cost = cost + 1")
    said = await asyncio.to_thread(command, "ledger", "prune", "--yes", status=1)
    assert said[:2] == [due, "Dropped: none."]
    assert "usage differs" in said[2]
    await aged.database.execute("update usage set cost = cost - 1")
    assert await asyncio.to_thread(command, "ledger", "prune", "--yes") == [due, "Dropped: generations_old."]
    assert await aged.left() == aged.young
    day_after = (aged.bound + timedelta(days=1)).date()
    [compared, kept_from] = await asyncio.to_thread(command, "usage", "reconcile")
    assert compared.endswith("days compared, 0 differences.")
    assert kept_from == f"Days before {day_after} are not compared: their generations may have been dropped."
