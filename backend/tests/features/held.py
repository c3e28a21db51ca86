"""As many generations at work as a test wants, for as long as it wants."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, islice

import asyncpg
import httpx2
from tests.features.usage.recorded import locked
from tests.harness import Key, generate, until_waited_for


@asynccontextmanager
async def held(
    database: asyncpg.Connection, key: Key, *clients: httpx2.AsyncClient, places: int, more: int = 2
) -> AsyncIterator[Sequence[httpx2.Response]]:
    """Of `places + more` generations that come at once, those without a place are answered, and the others are at work
    until the block ends: the key's row is held, so that none of them can be recorded. Afterwards they are all a 200.

    Needs the fixture `patience`, and a `record_deadline_seconds` that is as long.
    """
    async with locked(database, key):
        there = islice(cycle(clients), places + more)
        calls = [asyncio.ensure_future(generate(client, key)) for client in there]
        answers = [await each for each in islice(asyncio.as_completed(calls), more)]
        await until_waited_for(database)
        yield answers
        assert Counter(call.done() for call in calls) == Counter({True: more, False: places})
    after = [answer for answer in await asyncio.gather(*calls) if answer.status_code == 200]
    assert len(after) == places
