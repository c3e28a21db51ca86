"""Checks whether this process can serve, and the token for its metrics; the text of security.txt."""

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.database_fitness import unfit_sentence
from app.core.db import classify_database_error
from app.core.errors import NotFound, Unauthorized, Unavailable
from app.core.settings import Settings
from app.migrations import schema_state
from app.services import Services

DATABASE_SECONDS_MAX = 0.5
_EXPIRES_AFTER = timedelta(days=180)  # RFC 9116: less than a year

Part = Literal["store", "provider", "redis"]


class InvalidMetricsToken(Unauthorized):
    code, detail = "invalid_metrics_token", "Invalid metrics token"


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


def check_metrics_token(token: SecretStr | None, *, sent: str | None) -> None:
    """Raises NotFound where METRICS_TOKEN is not set, and InvalidMetricsToken for another or no token."""
    if token is None:
        raise NotFound
    if sent is None or not secrets.compare_digest(sent.encode(), token.get_secret_value().encode()):
        raise InvalidMetricsToken(credential_sent=sent is not None)


def security_txt(settings: Settings, *, now: datetime) -> str:
    """The file security.txt, in the form of RFC 9116. Raises NotFound where SECURITY_CONTACT is not set."""
    if settings.security_contact is None:
        raise NotFound
    expires = (now + _EXPIRES_AFTER).replace(hour=0, minute=0, second=0, microsecond=0)
    fields = [
        f"Contact: {settings.security_contact}",
        f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}",
        "Preferred-Languages: en",
    ]
    if settings.public_url.startswith("https://"):  # the RFC allows no other
        fields.append(f"Canonical: {settings.public_url}/.well-known/security.txt")
    return "".join(f"{field}\n" for field in fields)
