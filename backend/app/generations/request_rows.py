"""The rows of requests, looked up for all callers of this process who ask at the same time."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from sqlalchemy import ARRAY, Select, Text, bindparam, func, or_, select

from app.core.db import SessionMaker
from app.core.gathered_calls import GatheredCalls
from app.core.security import without_random
from app.models import Generation

_ASKED_MAX = 64

RequestRows = GatheredCalls[str, Sequence[Generation]]
"""By the id of a generation, as `is_id` has it: its row, and where it is the first image of a request, those of the
others, in order. Whose they are is for the caller to look at.
"""


def request_rows_in(sessions: SessionMaker) -> RequestRows:
    return GatheredCalls(partial(_find, sessions), most=_ASKED_MAX)


async def _find(sessions: SessionMaker, ids: Sequence[str]) -> Sequence[Sequence[Generation]]:
    found = defaultdict[int, list[Generation]](list)
    async with sessions.begin() as session:
        for n, row in await session.execute(_ROWS, {"ids": ids, "moments": [without_random(each) for each in ids]}):
            found[n].append(row)
    return [found[n] for n, _ in enumerate(ids, 1)]


def _rows_of_requests() -> Select[int, Generation]:
    # The ids of a request begin with the same time: for each this reads one millisecond of the primary key. A condition
    # on the account would have PostgreSQL read all of an account's rows where it takes the account to have few.
    texts = [bindparam(name, type_=ARRAY(Text)) for name in ("ids", "moments")]
    columns = func.unnest(*texts).table_valued("id", "moment", with_ordinality="n", name="asked")
    asked = columns.render_derived(name="asked")
    is_of_moment = Generation.id >= asked.c.moment, Generation.id < asked.c.moment.concat("~")
    is_asked = or_(Generation.id == asked.c.id, Generation.request_id == asked.c.id)
    return select(asked.c.n, Generation).where(*is_of_moment, is_asked).order_by(asked.c.n, Generation.id)


_ROWS = _rows_of_requests()
