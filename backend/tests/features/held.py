"""Generations that run for as long as a test needs them to."""

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
    database: asyncpg.Connection, key: Key, *clients: httpx2.AsyncClient, slots: int, more: int = 2
) -> AsyncIterator[Sequence[httpx2.Response]]:
    """Starts `slots + more` generations at once, and yields the answers of those without a slot. The others run until
    the block ends, since the key's row is locked and none of them can be recorded; then each is answered 200.

    Needs the fixture `patience`, and a `record_deadline_seconds` that is as long.
    """
    async with locked(database, key):
        there = islice(cycle(clients), slots + more)
        calls = [asyncio.ensure_future(generate(client, key)) for client in there]
        answers = [await each for each in islice(asyncio.as_completed(calls), more)]
        await until_waited_for(database)
        yield answers
        assert Counter(call.done() for call in calls) == Counter({True: more, False: slots})
    after = [answer for answer in await asyncio.gather(*calls) if answer.status_code == 200]
    assert len(after) == slots
