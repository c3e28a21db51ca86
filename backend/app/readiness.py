"""Whether this process is of use: what `/ready` says of it, for a server and for a worker alike."""

from collections.abc import Sequence
from typing import Literal

from app.core.errors import Unavailable
from app.services import Services

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
    the database can be used. Else this process is useless: raises Unavailable with the reason, after not much longer
    than DATABASE_SECONDS_MAX.
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
    if reason := await services.database_check.reason_unfit():
        raise Unavailable(reason)
