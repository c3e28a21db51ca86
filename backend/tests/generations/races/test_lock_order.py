"""Whatever a statement of the ledger waits for, it holds no lock that comes after that in the order of all."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import NamedTuple
from uuid import uuid4

import asyncpg
import pytest
from app.core.security import new_id
from app.generations.jobs.job import Job
from app.generations.ledger import statements
from app.generations.ledger.batches import recorded_values
from app.generations.ledger.queue import IdempotencyClaim, Lease
from app.generations.ledger.statements import Statement
from tests.features.usage.recorded import new_record
from tests.generations.races import rows
from tests.generations.races.rows import Call
from tests.harness import Key, until_waited_for

ORDER = {
    "api_keys": "select id from api_keys where id = any($1) order by id",
    "balances": "select account_id from balances where account_id = any($1) order by account_id",
    "lanes": "select account_id from lanes where account_id = any($1) order by account_id",
    "claims": "select encode(scope, 'hex') from claims where encode(scope, 'hex') = any($1) order by scope",
    "generations": "select id from generations where id = any($1) order by id",
}
"""The rows of a table, in order; the tables, in the order in which their rows are waited for. `lane_keys` and `usage`
change under the lock of the lane and the key alone: nobody waits for them. Nor does the order of generations matter to
those who have locked their keys.
"""
TABLES = list(ORDER)


class Row(NamedTuple):
    """A row."""

    table: int
    name: str

    def comes_before(self, other: "Row") -> bool:
        if self.table == other.table == TABLES.index("generations"):
            return False
        return self < other


class Scene(NamedTuple):
    """Two requests of two accounts, whose keys, lanes and claims are in other orders than the requests."""

    keys: Sequence[Key]
    jobs: Sequence[Job]
    names: Mapping[str, Sequence[str]]

    async def locked(self, database: asyncpg.Connection) -> set[Row]:
        """Those of its rows that a transaction has locked."""
        found = set()
        for place, (table, query) in enumerate(ORDER.items()):
            there, free = [
                {name for (name,) in await database.fetch(f"{query} {lock}", self.names[table])}
                for lock in ("", "for no key update skip locked")
            ]
            found |= {Row(place, name) for name in there - free}
        return found


async def new_scene(database: asyncpg.Connection, *, price: int = rows.PRICE) -> Scene:
    key_ids, account_ids = sorted(new_id("key") for _ in range(2)), sorted(new_id("acc") for _ in range(2))
    pairs = zip(key_ids, reversed(account_ids), strict=True)
    keys = [await rows.new_key(database, key_id=key_id, account_id=account_id) for key_id, account_id in pairs]
    scopes = [bytes([255 - place] * 32) for place in range(2)]
    records = [
        rows.new_claimed_job(key, images=2, scope=scope, price=price) for key, scope in zip(keys, scopes, strict=True)
    ]
    await rows.recorded(database, *records)
    jobs = sorted(await rows.taken(database), key=lambda job: job.key_id)
    names = {
        "api_keys": key_ids,
        "balances": account_ids[::-1],
        "lanes": account_ids[::-1],
        "claims": [scope.hex() for scope in scopes],
        "generations": [image for job in jobs for image in job.ids],
    }
    return Scene(keys, jobs, names)


def _record(scene: Scene, price: int = 0) -> Call:
    records = [new_record(key) for key in scene.keys]
    for place, record in enumerate(records):
        record.lease = Lease(uuid4(), 60)
        record.claim = IdempotencyClaim(bytes([9 - place] * 32), [bytes(32)])
        record.price = price
    statement = statements.RECORD_PRICED if price else statements.RECORD
    return Call(statement, recorded_values(statement, records, waiting_max=0))


def _record_queued(scene: Scene, price: int = 0) -> Call:
    return rows.record_queued(*(rows.new_claimed_job(key, images=2, price=price) for key in scene.keys))


def _make_lanes(scene: Scene) -> Call:
    values = {"key_id": [each.id for each in scene.keys], "class": ["now", "batch"]}
    return Call(statements.MAKE_LANES, values)


def _expire_claims(scene: Scene) -> Call:
    return Call(statements.EXPIRE_CLAIMS, {"scope": list(map(bytes.fromhex, scene.names["claims"]))})


def _take_over(scene: Scene) -> Call:
    return Call(statements.TAKE_OVER, {"scope": bytes.fromhex(scene.jobs[0].options["scope"])})


class Case(NamedTuple):
    """A statement that waits: what it is called with, which tables have rows that it waits for, and what has become of
    the scene's rows before.
    """

    call: Callable[[Scene], Call]
    tables: str
    before: str = "select"
    is_of_first: bool = False
    """Whether it is about the first request alone."""
    price: int = rows.PRICE
    """Of what there is before."""


_IS_QUEUED = """
    update generations set status = 'queued'; update lanes set waiting = running, running = 0;
    update lane_keys set waiting = running, running = 0;
"""
_IS_CANCELLED = "update generations set status = 'cancelled', lease_until = null"
_HAS_LAPSED = "update generations set lease_until = now() - interval '1 second'"
_WAS_SYNCHRONOUS = """
    update generations set lease_until = now() - interval '1 second', expires_at = null;
    update claims set lease_until = now() - interval '1 second';
"""
_IS_OLD = "update claims set created_at = now() - interval '25 hours'; update generations set status = 'lost'"

WAITING = {
    "record": Case(_record, "api_keys", price=0),
    "record_priced": Case(partial(_record, price=rows.PRICE), "api_keys balances"),
    "record_queued": Case(_record_queued, "api_keys lanes", price=0),
    "record_queued_priced": Case(partial(_record_queued, price=rows.PRICE), "api_keys balances lanes"),
    "make_lanes": Case(_make_lanes, "api_keys"),
    "settle": Case(lambda scene: rows.settle_calls(*scene.jobs), "api_keys claims generations", price=0),
    "settle_priced": Case(lambda scene: rows.settle_calls(*scene.jobs), "api_keys balances claims generations"),
    "settle_jobs": Case(lambda scene: rows.settle(*scene.jobs), "api_keys lanes claims generations", price=0),
    "settle_jobs_priced": Case(lambda scene: rows.settle(*scene.jobs), "api_keys balances lanes claims generations"),
    "give_back_jobs": Case(lambda scene: rows.give_back(*scene.jobs), "api_keys balances lanes generations"),
    "sweep_jobs": Case(lambda _: rows.sweep_jobs(), "api_keys balances lanes generations", _HAS_LAPSED),
    "sweep_lapsed": Case(
        lambda _: Call(statements.SWEEP_LAPSED, {}), "api_keys balances generations", _WAS_SYNCHRONOUS
    ),
    "expire_claims": Case(_expire_claims, "api_keys claims", _IS_OLD),
    "take_over": Case(_take_over, "api_keys balances claims generations", _WAS_SYNCHRONOUS, is_of_first=True),
    "cancel_job": Case(
        lambda scene: rows.cancel_job(scene.jobs[0].id), "api_keys balances lanes generations", is_of_first=True
    ),
    "cancel_queued": Case(
        lambda scene: rows.cancel_queued(*scene.keys),
        "api_keys balances lanes generations",
        _IS_QUEUED,
    ),
    "requeue_job": Case(
        lambda scene: rows.requeue_job(scene.jobs[0].id),
        "api_keys balances lanes claims generations",
        _IS_CANCELLED,
        is_of_first=True,
    ),
}


async def violations(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], case: Case, *, text: str | None = None
) -> Sequence[tuple[Row, Row]]:
    """Pairs of rows of which the case's statement waits for the first, and holds a lock of the second, which comes
    later; or does not hold the second, a key, which comes before whatever else it waits for.

    The first and the last row of each table are held, one after the other, until the statement waits for them; it is
    rolled back each time.
    """
    scene = await new_scene(database, price=case.price)
    await database.execute(case.before)
    call, names = case.call(scene), scene.names
    if text is not None:
        call = replace(call, statement=replace(call.statement, text=text))
    if case.is_of_first:
        names = {table: [each[0]] if table != "generations" else scene.jobs[0].ids for table, each in names.items()}
    found = []
    for table, place in product(case.tables.split(), (0, -1)):
        held = Row(TABLES.index(table), sorted(names[table])[place])
        async with database.transaction():
            await database.execute(f"{ORDER[table]} for update", [held.name])
            running = asyncio.create_task(_run_and_roll_back(writers[0], call))
            await until_waited_for(database)
            locked = await scene.locked(writers[1])
            keys = {Row(0, key_id) for key_id in names["api_keys"]}
            found += [(held, each) for each in locked if held.comes_before(each)]
            found += [(held, each) for each in keys - locked if each.comes_before(held)]
        await running
    return found


async def _run_and_roll_back(connection: asyncpg.Connection, call: Call) -> None:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await call.run(connection)
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("name", WAITING)
async def test_a_statement_that_waits_holds_nothing_that_comes_later(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], name: str
) -> None:
    assert await violations(database, writers, WAITING[name]) == []


@pytest.mark.parametrize(
    ("name", "part", "wrong"),
    [
        ("settle", "order by k.id", "order by k.id desc"),
        ("settle", "and (select count(*) from claimed) >= 0", ""),
        ("settle_jobs", "order by k.id", "order by k.id desc"),
        ("settle_jobs", "and (select count(*) from lane) >= 0", ""),
        ("settle_jobs", "and (select count(*) from claimed) >= 0", ""),
        ("sweep_jobs", "order by l.account_id", "order by l.account_id desc"),
        ("record_priced", "order by b.account_id", "order by b.account_id desc"),
        ("settle_priced", "order by b.account_id", "order by b.account_id desc"),
        ("settle_priced", "and (select count(*) from payers) > 0", ""),
        ("sweep_lapsed", "and (select count(*) from payers) >= 0", ""),
        ("cancel_job", "and (select count(*) from payers) >= 0", ""),
    ],
)
async def test_this_test_finds_a_wrong_order(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], name: str, part: str, wrong: str
) -> None:
    text = Statement.load(name).text
    assert part in text
    assert await violations(database, writers, WAITING[name], text=text.replace(part, wrong)) != []


NEVER_WAITING: Mapping[str, Callable[[Scene], Call]] = {
    "take_jobs": lambda _: rows.take_jobs(),
    "mark_sent": lambda scene: rows.mark_sent(*scene.jobs),
    "renew_leases": lambda scene: rows.renew_leases(*scene.jobs),
    "sweep_claims": lambda _: Call(statements.SWEEP_CLAIMS, {}),
}
LOCKING_NO_ROW = {"find_recorded", "find_settled", "discard_plans", "fence"}


@pytest.mark.parametrize("name", NEVER_WAITING)
async def test_a_statement_that_may_begin_anywhere_waits_for_nothing(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], name: str
) -> None:
    scene = await new_scene(database)
    before = {"take_jobs": _IS_QUEUED, "sweep_claims": _IS_OLD}
    await database.execute(before.get(name, "select"))
    for table, query in ORDER.items():
        async with database.transaction():
            await database.execute(f"{query} for update", scene.names[table])
            await _run_and_roll_back(writers[0], NEVER_WAITING[name](scene))


def test_every_statement_is_in_one_of_the_tables() -> None:
    loaded = [each for each in vars(statements).values() if isinstance(each, Statement)]
    names = {each.name for each in loaded if "skip locked" not in each.name} | set(statements.QUERIES)
    assert names == {*WAITING, *NEVER_WAITING, *LOCKING_NO_ROW}
