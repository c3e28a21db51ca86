"""Keys, jobs and statements of tests below the ledger."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import cycle
from typing import Any

import asyncpg
from app.core.security import new_id, new_timed_id
from app.generations.jobs.job import Job, jobs_of
from app.generations.ledger import statements
from app.generations.ledger.batches import recorded_values, settled_values
from app.generations.ledger.queue import IdempotencyClaim, ImageEnd, PendingRecord, PendingSettlement
from app.generations.ledger.statements import Statement
from app.generations.ledger.writer import ATTEMPTS_MAX
from tests.generations.jobs.lanes import leases_of, new_job
from tests.harness import Key

PRICE = 7
"""Of each image, in millionths."""
_ACCOUNTS = "insert into accounts (id) select unnest($1::text[]) on conflict do nothing"
_KEYS = """
insert into api_keys (id, account_id, name, environment, prefix, key_hash, cap)
select id, account_id, 'a key', 'live', 'nb_live_12345678', sha256(convert_to(id, 'UTF8')), 1000000000
from unnest($1::text[], $2::text[]) as k(id, account_id)
"""
_PAY_AFTERWARDS = "update balances set is_postpaid = true where account_id = any($1::text[])"
_LOCK_KEYS = "select from api_keys where id = any($1) order by id for no key update"
_REVOKE_KEYS = "update api_keys set revoked_at = clock_timestamp() where id = any($1)"


async def new_key(database: asyncpg.Connection, *, account_id: str | None = None, key_id: str | None = None) -> Key:
    """A key, of a new account or this one. It is known to the ledger alone: nobody can call with it."""
    key = Key(key_id or new_id("key"), "")
    await add_keys(database, [key], [account_id or new_id("acc")])
    return key


async def add_keys(database: asyncpg.Connection, keys: Sequence[Key], account_ids: Sequence[str]) -> None:
    """Adds these keys, which have caps, with their accounts, which pay afterwards."""
    await database.execute(_ACCOUNTS, account_ids)
    await database.execute(_PAY_AFTERWARDS, account_ids)
    await database.execute(_KEYS, [each.id for each in keys], account_ids)


def new_claimed_job(key: Key, *, images: int = 1, scope: bytes | None = None, price: int = PRICE) -> PendingRecord:
    """A request of this key with an Idempotency-Key, new or of this scope, that is to wait; made now."""
    record = new_job(key, images=images)
    record.price = price
    first = new_timed_id("gen", now=time.time())
    record.ids = [f"{first[:-2]}{place:02d}" for place in range(images)]
    scope = scope or sha256(first.encode()).digest()
    record.claim = IdempotencyClaim(scope, [bytes(32)])
    record.extra = f'{{"options": {{"job": 1, "scope": "{scope.hex()}", "fingerprint": "{bytes(32).hex()}"}}}}'
    return record


def repetition_of(record: PendingRecord, key: Key | None = None) -> PendingRecord:
    """The same request with the same Idempotency-Key once more, under the same key or another of the account."""
    key = key or Key(record.key_id, "")
    return new_claimed_job(key, images=len(record.ids), scope=record.scope, price=record.price)


@dataclass(frozen=True)
class Call:
    """A statement with its values. In its transaction `to_keys` is done to the rows of these keys before."""

    statement: Statement
    values: Mapping[str, Any]
    keys: Sequence[str] = ()
    to_keys: str = _LOCK_KEYS

    async def run(self, connection: asyncpg.Connection) -> Sequence[asyncpg.Record]:
        """Its rows, once it has committed."""
        async with connection.transaction():
            if self.keys:
                await connection.execute(self.to_keys, list(self.keys))
            return list(await connection.fetch(self.statement.text, *self.statement.arguments(self.values)))


def record_queued(*records: PendingRecord, waiting_max: int = 1_000_000) -> Call:
    """As the ledger records jobs that all have a price, or all have none."""
    statement = statements.RECORD_QUEUED_PRICED if records[0].price else statements.RECORD_QUEUED
    return Call(statement, recorded_values(statement, records, waiting_max=waiting_max))


def take_jobs(*, jobs_max: int = 100, most: int = 100, seconds: float = 60) -> Call:
    values = {"class": "now", "jobs_max": jobs_max, "lease_seconds": seconds, "account_most": most, "key_most": most}
    return Call(statements.QUERIES["take_jobs"], values)


def mark_sent(*jobs: Job) -> Call:
    return Call(statements.MARK_SENT, leases_of(jobs))


def renew_leases(*jobs: Job, seconds: float = 60) -> Call:
    return Call(statements.QUERIES["renew_leases"], {**leases_of(jobs), "lease_seconds": seconds})


def give_back(*jobs: Job) -> Call:
    return Call(statements.QUERIES["give_back_jobs"], {**leases_of(jobs), "key_id": [job.key_id for job in jobs]})


def settle(*jobs: Job, ends: Mapping[str, ImageEnd] | None = None) -> Call:
    """As the ledger ends jobs that all have a price, or all have none."""
    return Call(statements.SETTLE_JOBS_PRICED if jobs[0].price else statements.SETTLE_JOBS, _ends(jobs, ends))


def settle_calls(*jobs: Job) -> Call:
    """As the ledger ends requests that their callers wait for, all with a price, or all without."""
    return Call(statements.SETTLE_PRICED if jobs[0].price else statements.SETTLE, _ends(jobs))


def _ends(jobs: Sequence[Job], ends: Mapping[str, ImageEnd] | None = None) -> Mapping[str, Any]:
    return settled_values([PendingSettlement(job.record, ends or {}) for job in jobs])


def cancel_job(request_id: str) -> Call:
    return Call(statements.QUERIES["cancel_job"], {"request_id": request_id, "error": "cancelled"})


def cancel_queued(*keys: Key) -> Call:
    ids = [each.id for each in keys]
    return Call(statements.CANCEL_QUEUED, {"key_id": ids, "error": "key_revoked"}, keys=ids)


def revoke(key_id: str) -> Call:
    """Revokes the key, with all that waits under it."""
    return replace(cancel_queued(Key(key_id, "")), to_keys=_REVOKE_KEYS)


def requeue_job(request_id: str, *, seconds: float = 3600) -> Call:
    return Call(statements.QUERIES["requeue_job"], {"request_id": request_id, "expires_seconds": seconds})


def sweep_jobs() -> Call:
    return Call(statements.SWEEP_JOBS, {"attempts_max": ATTEMPTS_MAX})


async def taken(connection: asyncpg.Connection, *, seconds: float = 60, jobs_max: int = 100) -> Sequence[Job]:
    """The jobs that a worker is given on this connection."""
    rows = await take_jobs(seconds=seconds, jobs_max=jobs_max).run(connection)
    return jobs_of(rows, job_class="now", seconds=seconds)


async def new_taken_jobs(connection: asyncpg.Connection, count: int, *, images: int = 2) -> Sequence[Job]:
    """Jobs, each of an account of its own, that were recorded and taken, while nothing else waits. Every other has a
    price.
    """
    keys = [Key(new_id("key"), "") for _ in range(count)]
    await add_keys(connection, keys, [new_id("acc") for _ in keys])
    prices = cycle((PRICE, 0))
    await recorded(connection, *(new_claimed_job(key, images=images, price=next(prices)) for key in keys))
    return await taken(connection, jobs_max=count)


async def new_taken_job(connection: asyncpg.Connection, key: Key, *, images: int = 1, seconds: float = 60) -> Job:
    """A job that was recorded and taken, while nothing else waits."""
    record = new_claimed_job(key, images=images)
    await recorded(connection, record)
    [job] = await taken(connection, seconds=seconds)
    return job


async def recorded(connection: asyncpg.Connection, *records: PendingRecord) -> None:
    """Records jobs, and the lanes that they need."""
    lanes = {"key_id": [each.key_id for each in records], "class": ["now" for _ in records]}
    await Call(statements.MAKE_LANES, lanes).run(connection)
    for is_priced in (False, True):
        if batch := [each for each in records if bool(each.price) == is_priced]:
            rows = await record_queued(*batch).run(connection)
            assert all(row["created_at"] is not None for row in rows)


async def statuses(database: asyncpg.Connection, request_id: str) -> set[str]:
    """Those of the request's images."""
    rows = await database.fetch("select distinct status from generations where request_id = $1", request_id)
    return {status for (status,) in rows}


async def lapse(database: asyncpg.Connection, *request_ids: str) -> None:
    """Ends the leases of these requests."""
    over = "update generations set lease_until = now() - interval '1 second' where request_id = any($1)"
    await database.execute(over, list(request_ids))


async def lapse_if_running(database: asyncpg.Connection, request_id: str) -> None:
    """Ends the lease of this request if a worker has it."""
    if await statuses(database, request_id) == {"processing"}:
        await lapse(database, request_id)
