"""What must hold after every fault: the ledger against what callers were told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Protocol

import asyncpg
import httpx2
from app.core.db import DATABASE_ERRORS
from tests.chaos.load import Call
from tests.chaos.models import is_as_the_catalogue_says
from tests.harness import Key, looks

_LEDGER = """
    select id, prompt, created_at, environment, model, route, tries, list_price, cost from generations
    where key_id = $1 and status = 'delivered'
"""
_KEY = """
    select last_used_at, revoked_at, (select max(created_at) from generations where key_id = $1) as last_row_at,
      (select coalesce(sum(pictures), 0) from usage where key_id = $1)::bigint as usage
    from api_keys where id = $1
"""
_MISCOUNTED = """
    select to_char(coalesce(u.day, g.day), 'YYYY-MM-DD') as day, coalesce(u.model, g.model) as model,
      concat_ws(' ', u.pictures, u.list_amount, u.cost) as usage,
      concat_ws(' ', g.pictures, g.list_amount, g.cost) as rows
    from (select * from usage where key_id = $1) u full join (
      select (delivered_at at time zone 'UTC')::date as day, model, count(*) as pictures,
        sum(list_price)::bigint as list_amount, coalesce(sum(cost), 0)::bigint as cost
      from generations where key_id = $1 and status = 'delivered' group by 1, 2
    ) g using (day, model)
    where (u.pictures, u.list_amount, u.cost) is distinct from (g.pictures, g.list_amount, g.cost)
"""
_OVERDUE = "select count(*) from generations where status = 'processing' and lease_until < now() - $1::interval"
_DRAWN = "select count(*) from generations where status = 'processing' and created_at > now() - $1::interval"
_ENDED = """
    select id, status from generations where key_id = any($1) and (status = 'delivered') = $2 order by id desc limit 40
"""
_CLAIMS = """
    select count(*) from claims c left join generations g on g.id = c.generation_id where g.id is null
    union all select count(*) from (select 1 from claims group by generation_id having count(*) > 1) twice
"""
_MAY_LAG = timedelta(seconds=1)
_MAY_BE_OVERDUE = timedelta(seconds=15)  # workers sweep every ten seconds
_LOOK_SECONDS = 0.05


class Database(Protocol):
    """A database whose ledger can be looked at, whatever stands before it."""

    async def connect(self) -> asyncpg.Connection: ...

    def deadlocks(self) -> int: ...


async def violations(cluster: Database, journal: Iterable[Call]) -> list[str]:
    """Every promise that was broken to the callers of this journal, as sentences. Nobody may be calling any more."""
    calls_of: dict[str, list[Call]] = defaultdict(list)
    for call in journal:
        calls_of[call.key_id].append(call)
    connection = await cluster.connect()
    # Of one moment: a call whose client has left may still be recorded.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = [
            f"{key_id}: {each}" for key_id in calls_of for each in await _of_key(connection, key_id, calls_of[key_id])
        ]
        loose, shared = [row[0] for row in await connection.fetch(_CLAIMS)]
        overdue = await connection.fetchval(_OVERDUE, _MAY_BE_OVERDUE)
    await connection.close()
    found += [f"{overdue} rows are processed past their lease"] if overdue else []
    found += [f"{loose} claims without a row"] if loose else []
    found += [f"{shared} rows with two claims"] if shared else []
    found += [f"{cluster.deadlocks()} deadlocks"] if cluster.deadlocks() else []
    return found


async def _of_key(connection: asyncpg.Connection, key_id: str, calls: Sequence[Call]) -> list[str]:
    rows = await connection.fetch(_LEDGER, key_id)
    [key] = await connection.fetch(_KEY, key_id)
    ids_of: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        ids_of[row["prompt"]].append(row["id"])
    told: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        told[call.prompt].append(call)
    found = [broken for prompt in {*ids_of, *told} for broken in _of_call(ids_of[prompt], told[prompt])]
    found += [
        f"{each['id']} has not the price or the cost of its model"
        for each in rows
        if not is_as_the_catalogue_says(each)
    ]
    found += [
        f"usage of {each['model']} on {each['day']} is {each['usage']}, its rows {each['rows']}"
        for each in await connection.fetch(_MISCOUNTED, key_id)
    ]
    ok = sum(len(_told_ids(tries)) for tries in told.values())
    unknown = sum(tries[0].images for tries in told.values() if _outcomes(tries) - {"fail"} == {"unknown"})
    if key["usage"] != len(rows):
        found.append(f"usage {key['usage']}, ledger {len(rows)}")
    if not ok <= key["usage"] <= ok + unknown:
        found.append(f"usage {key['usage']}, ok {ok}, unknown {unknown}")
    if key["last_row_at"] and not timedelta(0) <= key["last_row_at"] - key["last_used_at"] <= _MAY_LAG:
        found.append("last_used_at is not the last use")
    if key["revoked_at"] is not None and any(row["created_at"] > key["revoked_at"] for row in rows):
        found.append("a row is younger than the revocation")
    return found


def _of_call(ids: Sequence[str], tries: Sequence[Call]) -> Iterable[str]:
    """The rows of one call and its retries, against all that its caller was told."""
    outcomes = _outcomes(tries)
    told = _told_ids(tries)
    fresh = sum(call.outcome == "ok" and not call.replayed for call in tries)
    images = tries[0].images if tries else 1
    if len(ids) > (len(told) or images):
        yield f"{len(ids)} rows for one call"
    if len({tuple(call.ids) for call in tries if call.outcome == "ok"}) > 1 or len(told) > images:
        yield "several answers for one call"
    if not told <= set(ids):
        yield "an acknowledged row is lost"
    if ids and not outcomes:
        yield "a row that nobody asked for"
    if ids and (outcomes == {"fail"} or (told and not fresh and "unknown" not in outcomes)):
        yield f"a refused call is in the ledger ({', '.join({call.code for call in tries if call.code})})"
    if fresh > 1:
        yield f"{fresh} answers for one call that are not marked as replays"
    if any(call.code == "timeout" for call in tries):
        yield "a hang"


def _told_ids(tries: Sequence[Call]) -> set[str]:
    return {each for call in tries for each in call.ids}


def _outcomes(tries: Sequence[Call]) -> set[str]:
    return {call.outcome for call in tries}


def excesses(passed: Iterable[Call], *, burst: int, per_second: float) -> list[str]:
    """The spans of time in which more calls passed than a limit allows, as sentences.

    What was sent and answered within a span was decided within it, whoever decided.
    """
    spans = sorted((call.sent, call.received) for call in passed)
    found = []
    for first, (begin, _) in enumerate(spans):
        for count, end in enumerate(sorted(received for _, received in spans[first:]), start=1):
            if count > burst + per_second * (end - begin):
                found.append(f"{count} passed in {end - begin:.3f} s")
    return found


async def all_ended(cluster: Database, *, within_seconds: float) -> None:
    """Returns once none is drawn any more: what began so many seconds ago has ended, or will be lost."""
    connection = await cluster.connect()
    for _ in looks():
        if not await connection.fetchval(_DRAWN, timedelta(seconds=within_seconds)):
            await connection.close()
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise AssertionError("a generation does not end")


async def wrongly_served(cluster: Database, client: httpx2.AsyncClient, keys: Sequence[Key]) -> list[str]:
    """The images of these keys' last rows that are served though they were not delivered, or the other way round."""
    connection = await cluster.connect()
    rows = [row for status in (True, False) for row in await connection.fetch(_ENDED, [key.id for key in keys], status)]
    await connection.close()
    answers = [await client.head(f"/v1/images/{row['id']}.png") for row in rows]
    found = [(row["status"], answer.status_code) for row, answer in zip(rows, answers, strict=True)]
    return [f"{status}: {code}" for status, code in found if code != (200 if status == "delivered" else 404)]


@asynccontextmanager
async def watching_last_use(cluster: Database, keys: Sequence[Key]) -> AsyncIterator[None]:
    """Looks at `last_used_at` all the time, across stops of the database; fails if it ever goes back."""
    watch = asyncio.create_task(_watch(cluster, [key.id for key in keys]))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(cluster: Database, key_ids: Sequence[str]) -> None:
    seen: dict[str, datetime] = {}
    while True:
        with suppress(*DATABASE_ERRORS):
            connection = await cluster.connect()
            try:
                await _look(connection, key_ids, seen)
            finally:
                connection.terminate()
        await asyncio.sleep(_LOOK_SECONDS)


async def _look(connection: asyncpg.Connection, key_ids: Sequence[str], seen: dict[str, datetime]) -> None:
    statement = "select id, last_used_at from api_keys where id = any($1) and last_used_at is not null"
    while True:
        for key_id, at in await connection.fetch(statement, key_ids):
            assert seen.get(key_id, at) <= at, "last_used_at went back"
            seen[key_id] = at
        await asyncio.sleep(_LOOK_SECONDS)
