"""Jobs that wait, written as they would be, but thousands in a moment."""

import time
from collections.abc import Sequence

import asyncpg
from app.core.security import new_timed_id
from tests.harness import Key


async def queue(
    database: asyncpg.Connection, key: Key, jobs: int, *, job_class: str = "now", prompt: str = "A cute banana"
) -> Sequence[str]:
    """The ids of so many jobs of the key that wait, one image each."""
    ids = sorted(new_timed_id("gen", now=time.time()) for _ in range(jobs))
    await database.execute(_QUEUE, key.id, ids, prompt, job_class)
    for table, columns in (("lanes", "account_id"), ("lane_keys", "account_id, key_id")):
        await database.execute(_LANE.format(table=table, columns=columns), key.id, jobs, job_class)
    return ids


_QUEUE = """
insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, class, status,
  lease_until, expires_at)
select i, i, account_id, environment, k.id, $3, '64x64', 'openai', $4, 'queued', now() + interval '1 hour',
  now() + interval '1 hour'
from api_keys k cross join unnest($2::text[]) i where k.id = $1
"""
_LANE = """
insert into {table} as l ({columns}, class, waiting)
select {columns}, $3, $2 from (select account_id, id as key_id from api_keys where id = $1) k
on conflict on constraint {table}_pkey do update set waiting = l.waiting + excluded.waiting
"""
