"""What waits and runs, as operators see it: by class, by account, and job by job."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.security import is_id, time_prefix, without_random
from app.models import Generation, Lane, User, is_owner_of

_OLDEST = timedelta(days=5)
"""How long after it was accepted a job may wait: less than a day, and again where an operator requeued it."""

_CLASSES = """
with lane as (
  select class, sum(waiting)::bigint as waiting, sum(running)::bigint as running from lanes group by class
), oldest as (
  -- By a range of classes: for an order by the id alone the planner may go through the whole table by id.
  select l.class, min(o.created_at) as created_at
  from lanes l join lane_keys w on w.account_id = l.account_id and w.class = l.class and w.waiting > 0
  cross join lateral (
    select created_at from generations where key_id = w.key_id and class between w.class and w.class
      and status = 'queued' and id >= :first
    order by class, id limit 1
  ) o
  where l.waiting > 0 group by l.class
)
select c.class, coalesce(l.waiting, 0), coalesce(l.running, 0),
  coalesce(extract(epoch from clock_timestamp() - o.created_at), 0)::int
from unnest(array['now', 'batch']) with ordinality as c(class, n)
left join lane l on l.class = c.class left join oldest o on o.class = c.class order by c.n
"""

_UNFINISHED = """
select g.id, g.class, g.status, (
    select count(*) from generations i
    where i.id >= left(g.id, 14) and i.id < left(g.id, 14) || '~' and i.request_id = g.id and i.lease_until is not null
  ), g.model, g.key_id, g.attempts, g.created_at, g.expires_at
from generations g
where g.account_id = :account_id and g.lease_until is not null and g.expires_at is not null and g.id = g.request_id
  and g.id > :after
order by g.id limit :limit
"""


@dataclass(frozen=True)
class ClassSummary:
    """The jobs of a class, counted in images; `oldest_seconds` is how long ago the oldest that waits was accepted."""

    job_class: str
    waiting: int
    running: int
    oldest_seconds: int


@dataclass(frozen=True)
class LaneSummary:
    """A lane of an account, counted in images; `most` None is the settings' number."""

    email: str | None
    account_id: str
    job_class: str
    waiting: int
    running: int
    most: int | None
    weight: int


@dataclass(frozen=True)
class JobSummary:
    """A job that has not ended. `images` have not."""

    id: str
    job_class: str
    status: str
    images: int
    model: str
    key_id: str
    attempts: int
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class JobImage:
    """One image of a job, with all that is known of it but what was asked for."""

    id: str
    request_id: str
    account_id: str
    key_id: str
    environment: str
    kind: str
    model: str
    size: str
    quality: str
    format: str
    job_class: str
    status: str
    error: str | None
    attempts: int
    created_at: datetime
    expires_at: datetime
    lease_until: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    deleted_at: datetime | None
    route: str | None
    provider: str
    tries: int | None
    cost: int | None
    provider_request_id: str | None


async def find_classes(session: AsyncSession) -> Sequence[ClassSummary]:
    """All classes. It reads one row for each key under which something waits, however much that is."""
    first = time_prefix("gen", datetime.now(UTC) - _OLDEST)
    return [ClassSummary(*row) for row in await session.execute(text(_CLASSES), {"first": first})]


async def find_lanes(session: AsyncSession, *, which: ColumnElement[bool], limit: int) -> Sequence[LaneSummary]:
    """Those lanes that are meant, the ones with most waiting first."""
    columns = User.email, Lane.account_id, Lane.lane_class, Lane.waiting, Lane.running, Lane.most, Lane.weight
    found = select(*columns).select_from(Lane).outerjoin(User, is_owner_of(Lane.account_id)).where(which)
    most_waiting = found.order_by(Lane.waiting.desc(), Lane.running.desc(), Lane.account_id, Lane.lane_class.desc())
    rows: Sequence[Any] = (await session.execute(most_waiting.limit(limit))).all()
    return [LaneSummary(*row) for row in rows]


async def find_unfinished(session: AsyncSession, *, account_id: str, after: str, limit: int) -> Sequence[JobSummary]:
    """At most `limit` jobs of the account that wait or run and whose ids follow `after`, in order of id."""
    values = {"account_id": account_id, "after": after, "limit": limit}
    rows: Sequence[Any] = (await session.execute(text(_UNFINISHED), values)).all()
    return [JobSummary(*row) for row in rows]


async def find_images(session: AsyncSession, *, job_id: str) -> Sequence[JobImage]:
    """The images of the job with this id, or of which one has this id, in order; none where it is no job's."""
    if not is_id("gen", job_id):
        return []
    request_id = await session.scalar(select(Generation.request_id).where(Generation.id == job_id))
    if request_id is None:
        return []
    columns = [_COLUMNS.get(name) or getattr(Generation, name) for name in JobImage.__dataclass_fields__]
    low = without_random(request_id)
    of_request = Generation.id >= low, Generation.id < f"{low}~", Generation.request_id == request_id
    found = select(*columns).where(*of_request, Generation.expires_at.is_not(None)).order_by(Generation.id)
    rows: Sequence[Any] = (await session.execute(found)).all()
    return [JobImage(*row) for row in rows]


_COLUMNS = {"job_class": Generation.generation_class}
