"""Whether the database can be used now: checked once for all who ask, however many they are."""

import asyncio
import math

from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.database_fitness import unfit_sentence
from app.core.db import classify_database_error
from app.migrations import schema_state

DATABASE_SECONDS_MAX = 0.5
KNOWN_SECONDS = 0.5


class DatabaseCheck:
    """Checks the database on connections of `engine`, which nothing else uses: a pool that is busy with requests says
    nothing of the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._check_under_way: asyncio.Task[str | None] | None = None
        self._found: str | None = None
        self._known_until = -math.inf

    async def reason_unfit(self) -> str | None:
        """Why the database cannot be used, as a sentence; None if it answers within DATABASE_SECONDS_MAX, can be
        written to and has a schema that is not behind. What was found is repeated for KNOWN_SECONDS.
        """
        if asyncio.get_running_loop().time() < self._known_until:
            return self._found
        if self._check_under_way is None or self._check_under_way.done():
            self._check_under_way = asyncio.create_task(self._check())
        # The driver may take seconds to connect, or to give up on a server that hangs. Nobody waits for that, and the
        # check goes on: who asks next learns what it has found.
        check = self._check_under_way
        is_done, _ = await asyncio.wait({check}, timeout=DATABASE_SECONDS_MAX)
        return check.result() if is_done else "The database does not answer"

    async def _check(self) -> str | None:
        self._found = await self._find_reason()
        self._known_until = asyncio.get_running_loop().time() + KNOWN_SECONDS
        return self._found

    async def _find_reason(self) -> str | None:
        try:
            async with self._engine.connect() as connection:
                sentence = await unfit_sentence(connection)
                state = await schema_state(connection)
        except Exception as exception:
            if classify_database_error(exception) is None:
                raise
            return "The database cannot be reached"
        if not sentence and state in {"behind", "foreign"}:
            return "The database's schema is behind this program; run: nanobanana migrate"
        return sentence
