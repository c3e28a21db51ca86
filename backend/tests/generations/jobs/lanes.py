"""Jobs below HTTP: recorded, taken and ended on the ledger itself, and what the lanes must count then."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
from app.generations.jobs.job import Job, jobs_of
from app.generations.ledger import Ledger
from app.generations.ledger.queue import PendingRecord, Queueing
from app.generations.ledger.writer import Writer
from tests.features.usage.recorded import new_record
from tests.harness import Key

_WRONG = """
with truth as (
  select key_id, class, (count(*) filter (where status = 'queued'))::int as waiting,
    (count(*) filter (where status = 'processing'))::int as running
  from generations where expires_at is not null group by 1, 2
)
select w.key_id, w.waiting, t.waiting, w.running, t.running from lane_keys w
left join truth t on t.key_id = w.key_id and t.class = w.class
where (w.waiting, w.running) is distinct from (coalesce(t.waiting, 0), coalesce(t.running, 0))
union all
select l.account_id, l.waiting, s.waiting, l.running, s.running from lanes l
left join (
  select account_id, class, sum(waiting)::int as waiting, sum(running)::int as running from lane_keys group by 1, 2
) s on s.account_id = l.account_id and s.class = l.class
where (l.waiting, l.running) is distinct from (coalesce(s.waiting, 0), coalesce(s.running, 0))
"""


@asynccontextmanager
async def opened(writer: Writer) -> AsyncIterator[Ledger]:
    """A ledger with this writer."""
    ledger = Ledger(writer, queue_max=1000, deadline_seconds=60)
    ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


def new_job(key: Key, *, images: int = 1, expires_seconds: float = 3600) -> PendingRecord:
    """A request of this key that is to wait."""
    record = new_record(key)
    record.ids = sorted(f"{record.id[:-2]}{place:02d}" for place in range(images))
    record.provider = "openai"
    record.queueing = Queueing("now", expires_seconds)
    return record


async def take(
    ledger: Ledger, *, jobs_max: int = 100, account_most: int = 100, key_most: int = 100, seconds: float = 60
) -> Sequence[Job]:
    """What a worker is given."""
    rows = await ledger.query(
        "take_jobs",
        **{"class": "now", "jobs_max": jobs_max, "lease_seconds": seconds},
        account_most=account_most,
        key_most=key_most,
    )
    return jobs_of(rows, job_class="now", seconds=seconds)


async def wrong_lanes(database: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """The lanes and keys whose numbers are not those of the rows; there are none."""
    return list(await database.fetch(_WRONG))


def leases_of(jobs: Sequence[Job]) -> dict[str, list[str] | list[UUID]]:
    """The parameters `id` and `lease` of these jobs' images."""
    return {
        "id": [each for job in jobs for each in job.ids],
        "lease": [job.lease.token for job in jobs for _ in job.ids],
    }
