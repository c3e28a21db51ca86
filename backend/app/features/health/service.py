"""Whether this process can serve."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.db import trouble
from app.core.errors import Unavailable
from app.core.migrations import schema_state

DATABASE_SECONDS_MAX = 0.5


async def check_ready(engine: AsyncEngine, *, recording: bool) -> None:
    """Returns when generations are being recorded, and the database answers within half a second and has this
    program's schema.

    Raises Unavailable, with the reason, when it does not, and never takes much longer to say so.
    """
    if not recording:
        raise Unavailable("Generations are not being recorded; restart this process")
    task = asyncio.create_task(_check_schema(engine))
    # A driver may take seconds to give up on a server that hangs; the answer does not wait for that.
    done, _ = await asyncio.wait({task}, timeout=DATABASE_SECONDS_MAX)
    if not done:
        task.cancel()
        raise Unavailable("The database does not answer")
    await task


async def _check_schema(engine: AsyncEngine) -> None:
    try:
        async with engine.connect() as connection:
            state = await schema_state(connection)
    except Exception as exception:
        if trouble(exception) is None:
            raise
        raise Unavailable("The database cannot be reached") from None
    if state == "behind":
        raise Unavailable("The database's schema is behind this program; run: nanobanana migrate")
