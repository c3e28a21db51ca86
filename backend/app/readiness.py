"""Whether this process is of use: what `/ready` says of it, for a server and for a worker alike."""

import asyncio
from collections.abc import Sequence
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.database_fitness import unfit_sentence
from app.core.db import classify_database_error
from app.core.errors import Unavailable
from app.migrations import schema_state
from app.services import Services

DATABASE_SECONDS_MAX = 0.5

Part = Literal["store", "provider", "redis"]


def find_degraded(services: Services) -> Sequence[Part]:
    """What does not work now in this process, while it is of use without it:

    - `store`: no image is bought until one can be stored. Replays, test keys, lists and accounts go on.
    - `provider`: a route of the catalogue that only the operator can mend. Other routes and models go on.
    - `redis`: the process decides limits by itself, with its share of them.
    """
    generations = services.generations
    states: Sequence[tuple[Part, bool]] = (
        ("store", generations.store.is_failing),
        ("provider", bool(generations.catalogue.unusable_routes)),
        ("redis", services.limiter.is_degraded),
    )
    return [part for part, is_degraded in states if is_degraded]


async def check_ready(services: Services) -> None:
    """Returns if the server is not to stop, generations are being recorded, the worker that WORK asks for works, and
    the database answers within DATABASE_SECONDS_MAX, can be written to and has a schema that is not behind. Else this
    process is useless: raises Unavailable with the reason, after not much longer than that.
    """
    draining, ledger, worker = services.draining, services.generations.ledger, services.worker
    if draining.is_leaving:
        raise Unavailable("This server is stopping")
    if worker is not None and worker.done() and not draining.has_ended_jobs:
        raise Unavailable("The worker of this process has ended; restart this process")
    if not ledger.is_alive:
        raise Unavailable("Generations are not being recorded; restart this process")
    if ledger.needs_session:
        raise Unavailable("The database is behind a pooler in transaction mode; set DATABASE_DIRECT_URL")
    # The driver may take seconds to give up on a server that hangs; the answer does not wait for it. The task goes on
    # for that long: it drops the connections that have died.
    task = asyncio.create_task(_check_database(services.engine))
    task.add_done_callback(_UNFINISHED.discard)
    _UNFINISHED.add(task)
    done, _ = await asyncio.wait({task}, timeout=DATABASE_SECONDS_MAX)
    if not done:
        task.add_done_callback(_take_exception)
        raise Unavailable("The database does not answer")
    await task


_UNFINISHED: set[asyncio.Task[None]] = set()


def _take_exception(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


async def _check_database(engine: AsyncEngine) -> None:
    try:
        async with engine.connect() as connection:
            sentence = await unfit_sentence(connection)
            state = await schema_state(connection)
    except Exception as exception:
        if classify_database_error(exception) is None:
            raise
        raise Unavailable("The database cannot be reached") from None
    if sentence:
        raise Unavailable(sentence)
    if state in {"behind", "foreign"}:
        raise Unavailable("The database's schema is behind this program; run: nanobanana migrate")
