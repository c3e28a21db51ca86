"""The places of generations in the queue, looked up for all callers of this process who ask at the same time."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import text

from app.core.db import SessionMaker
from app.core.gathered_calls import GatheredCalls
from app.models import GenerationClass

_ASKED_MAX = 64

_PLACES = text("""
select (
  with own as (
    select l.account_id, l.class, l.weight, (
      select count(*) from (
        select from generations g
        where g.key_id = any(
            array(select k.key_id from lane_keys k where k.account_id = l.account_id and k.class = l.class)
          )
          and g.class = l.class and g.status = 'queued' and g.id <= asked.id limit 10000
      ) before
    ) as place
    from lanes l where l.account_id = asked.account_id and l.class = asked.class
  )
  select coalesce(sum(case
    when l.class <> own.class then l.waiting
    when l.account_id = own.account_id then own.place
    else least(l.waiting, ceil(own.place::float8 / own.weight) * l.weight) end), 1)::bigint
  from own join lanes l on l.waiting > 0 and l.class in (own.class, 'now')
)
from unnest(cast(:ids as text[]), cast(:account_ids as text[]), cast(:classes as text[])) with ordinality
  as asked(id, account_id, class, n)
order by n
""")
"""How many images are drawn before each, and it: lanes take turns, each gives as many at a time as its weight says, and
what is not urgent comes last. Rough: lanes change, and what an account may have running is not looked at.
"""


class Waiting(NamedTuple):
    """A generation that waits for a worker."""

    id: str
    account_id: str
    job_class: GenerationClass


Places = GatheredCalls[Waiting, int]
"""The place of each in the queue: 1 is next."""


def places_in(sessions: SessionMaker) -> Places:
    return GatheredCalls(partial(_find, sessions), most=_ASKED_MAX)


async def _find(sessions: SessionMaker, asked: Sequence[Waiting]) -> Sequence[int]:
    ids, account_ids, classes = map(list, zip(*asked, strict=True))
    async with sessions.begin() as session:
        values = {"ids": ids, "account_ids": account_ids, "classes": classes}
        return (await session.scalars(_PLACES, values)).all()
