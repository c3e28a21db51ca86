"""Checks whether this process can serve, and the token for its metrics."""

import asyncio
import secrets

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.db import classify_database_error
from app.core.errors import NotFound, Unauthorized, Unavailable
from app.migrations import schema_state

DATABASE_SECONDS_MAX = 0.5


class InvalidMetricsToken(Unauthorized):
    code, detail = "invalid_metrics_token", "Invalid metrics token"


async def check_ready(engine: AsyncEngine, *, recording: bool, storing: bool) -> None:
    """Returns if generations are being recorded, images can be stored, the database answers within
    DATABASE_SECONDS_MAX and its schema is current. Else raises Unavailable with the reason, after not much longer than
    DATABASE_SECONDS_MAX.
    """
    if not recording:
        raise Unavailable("Generations are not being recorded; restart this process")
    if not storing:
        raise Unavailable("Images cannot be stored")
    task = asyncio.create_task(_check_schema(engine))
    # The driver may take seconds to give up on a server that hangs; the answer does not wait for it.
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
        if classify_database_error(exception) is None:
            raise
        raise Unavailable("The database cannot be reached") from None
    if state == "behind":
        raise Unavailable("The database's schema is behind this program; run: nanobanana migrate")


def check_metrics_token(token: SecretStr | None, *, sent: str | None) -> None:
    """Raises NotFound where METRICS_TOKEN is not set, and InvalidMetricsToken for another or no token."""
    if token is None:
        raise NotFound
    if sent is None or not secrets.compare_digest(sent.encode(), token.get_secret_value().encode()):
        raise InvalidMetricsToken(credential_sent=sent is not None)
