"""What must hold after every fault: the ledger against what callers were told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import asyncpg
from tests.chaos.cluster import Cluster
from tests.chaos.load import Call
from tests.harness import Key

_LEDGER = "select id, prompt, created_at, delivered_at from generations where key_id = $1 and status = 'delivered'"
_KEY = """
    select last_used_at, revoked_at, (select coalesce(sum(pictures), 0) from usage where key_id = $1)::bigint as usage
    from api_keys where id = $1
"""
_CLAIMS = """
    select count(*) from claims c left join generations g on g.id = c.generation_id where g.id is null
    union all select count(*) from (select 1 from claims group by generation_id having count(*) > 1) twice
"""
_MAY_LAG = timedelta(seconds=1)
_LOOK_SECONDS = 0.05


async def violations(cluster: Cluster, journal: Iterable[Call]) -> list[str]:
    """Every promise that was broken to the callers of this journal, as sentences. Nobody may be calling any more."""
    calls_of: dict[str, list[Call]] = defaultdict(list)
    for call in journal:
        calls_of[call.key_id].append(call)
    connection = await cluster.connect()
    found = [f"{key_id}: {each}" for key_id in calls_of for each in await _of_key(connection, key_id, calls_of[key_id])]
    loose, shared = [row[0] for row in await connection.fetch(_CLAIMS)]
    await connection.close()
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
    ok = sum(any(call.outcome == "ok" for call in tries) for tries in told.values())
    unknown = sum(_outcomes(tries) - {"fail"} == {"unknown"} for tries in told.values())
    if key["usage"] != len(rows):
        found.append(f"usage {key['usage']}, ledger {len(rows)}")
    if not ok <= key["usage"] <= ok + unknown:
        found.append(f"usage {key['usage']}, ok {ok}, unknown {unknown}")
    if rows and not timedelta(0) <= max(row["delivered_at"] for row in rows) - key["last_used_at"] <= _MAY_LAG:
        found.append("last_used_at is not the last use")
    if key["revoked_at"] is not None and any(row["created_at"] > key["revoked_at"] for row in rows):
        found.append("a row is younger than the revocation")
    return found


def _of_call(ids: Sequence[str], tries: Sequence[Call]) -> Iterable[str]:
    """The rows of one call and its retries, against all that its caller was told."""
    outcomes = _outcomes(tries)
    told = {call.id for call in tries if call.outcome == "ok"}
    fresh = sum(call.outcome == "ok" and not call.replayed for call in tries)
    if len(ids) > 1:
        yield f"{len(ids)} rows for one call"
    if len(told) > 1:
        yield f"{len(told)} ids told for one call"
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


@asynccontextmanager
async def watching_last_use(cluster: Cluster, keys: Sequence[Key]) -> AsyncIterator[None]:
    """Looks at `last_used_at` all the time, across stops of the database; fails if it ever goes back."""
    watch = asyncio.create_task(_watch(cluster, [key.id for key in keys]))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(cluster: Cluster, key_ids: Sequence[str]) -> None:
    seen: dict[str, datetime] = {}
    while True:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
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
