"""Fills a database with generations that wait, as asynchronous requests of the last hour would have left them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

import asyncpg
from app.core.security import new_timed_id
from sqlalchemy.engine import make_url

SIDE = 64
_HOUR_SECONDS = 3600
_EXPIRES = timedelta(hours=20)

_ADD_ACCOUNTS = "insert into accounts (id) select unnest($1::text[])"
_ADD_KEYS = """
insert into api_keys (id, account_id, name, environment, prefix, key_hash)
select id, account_id, 'bench', 'live', 'nb_live_00000000', sha256(convert_to(id, 'UTF8'))
from unnest($1::text[], $2::text[]) as k(id, account_id)
"""
_COLUMNS = (
    *("id", "request_id", "account_id", "environment", "key_id", "prompt", "size", "provider", "status"),
    *("created_at", "lease_until", "expires_at", "delivered_at"),
)
_ADD_LANES = """
insert into lanes (account_id, class, waiting, turn)
select account_id, 'now', count(*), nextval('turns') from generations where status = 'queued' group by 1
"""
_ADD_LANE_KEYS = """
insert into lane_keys (key_id, class, account_id, waiting)
select key_id, 'now', account_id, count(*) from generations where status = 'queued' group by 1, 3
"""

_NONE: Mapping["KeyNumber", int] = MappingProxyType({})


class KeyNumber(NamedTuple):
    """A key of an account, both by numbers."""

    account: int
    key: int = 0

    @property
    def account_id(self) -> str:
        return f"acc_{self.account:020d}"

    @property
    def id(self) -> str:
        return f"key_{self.account:017d}{self.key:03d}"


def spread(jobs: int, accounts: int, *, first: int = 0) -> Mapping[KeyNumber, int]:
    """So many jobs in all, the same number for each account, of which the first has this number."""
    return {KeyNumber(number): jobs // accounts for number in range(first, first + accounts)}


async def connect(url: str) -> asyncpg.Connection:
    """A connection of the benchmark's own, which no setting of the application touches."""
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


async def fill(
    connection: asyncpg.Connection, waiting: Mapping[KeyNumber, int], delivered: Mapping[KeyNumber, int] = _NONE
) -> None:
    """Adds accounts, keys and so many waiting jobs of one image for each key, after so many that were delivered. Jobs
    of different accounts came in turn; those of an account's first key before those of its second.
    """
    accounts = list(dict.fromkeys(key.account_id for key in waiting))
    await connection.execute(_ADD_ACCOUNTS, accounts)
    await connection.execute(_ADD_KEYS, [key.id for key in waiting], [key.account_id for key in waiting])
    ended, waits = _in_order(delivered), _in_order(waiting)
    records = list(_records([*ended, *waits], delivered=len(ended)))
    await connection.copy_records_to_table("generations", records=records, columns=_COLUMNS)
    await connection.execute(_ADD_LANES)
    await connection.execute(_ADD_LANE_KEYS)


def _in_order(waiting: Mapping[KeyNumber, int]) -> Sequence[KeyNumber]:
    placed = [(key.key + number / jobs, key) for key, jobs in waiting.items() for number in range(jobs)]
    return [key for _, key in sorted(placed)]


def _records(keys: Sequence[KeyNumber], *, delivered: int) -> Iterator[tuple[object, ...]]:
    """A row for each, of which the first ones are delivered."""
    begin = time.time() - _HOUR_SECONDS
    for number, key in enumerate(keys):
        at = begin + number * _HOUR_SECONDS / len(keys)
        image_id, created_at = new_timed_id("gen", now=at), datetime.fromtimestamp(at, UTC)
        expires_at, is_delivered = created_at + _EXPIRES, number < delivered
        status = "delivered" if is_delivered else "queued"
        of_image = "live", key.id, "A cute banana", f"{SIDE}x{SIDE}", "gemini", status
        times = created_at, None if is_delivered else expires_at, expires_at, created_at if is_delivered else None
        yield image_id, image_id, key.account_id, *of_image, *times
