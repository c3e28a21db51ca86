"""Tries the configured database, Redis, store and provider: for `nanobanana check`, and before the server starts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from asyncpg import PostgresError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core import migrations
from app.core.db import create_engine
from app.core.pool import BoundedPool
from app.core.settings import ConfigurationError, Settings
from app.providers import ProviderUnavailable
from app.providers.configured import configured_provider
from app.ratelimit.batches import OutOfReach
from app.ratelimit.redis import check_redis as ask_redis
from app.storage import StoreUnavailable
from app.storage.configured import configured_store

Result = TypeVar("Result")


class DependencyUnavailable(ConfigurationError):
    """Redis, the store or the provider cannot be used now. The server starts all the same."""


def check_database(settings: Settings) -> str:
    """Raises ConfigurationError for a database that cannot be reached, may lose what it has written, or is behind."""
    if settings.database_url is None:
        return "ours, started by serve"
    asyncio.run(in_transaction(settings.database_url.get_secret_value(), _check_database))
    return "ok"


def check_redis(settings: Settings) -> str:
    """Raises ConfigurationError for an unreadable URL, and DependencyUnavailable for a Redis that cannot be used."""
    if settings.redis_url is None:
        return "none"
    try:
        asyncio.run(ask_redis(settings.redis_url.get_secret_value()))
    except (ValueError, TypeError, AttributeError):  # an option in it that the client does not know
        raise ConfigurationError("REDIS_URL is not a URL that the Redis client can read.") from None
    except OutOfReach as error:
        raise DependencyUnavailable(f"The Redis of REDIS_URL cannot be used ({error.reason}).") from None
    return "ok"


def check_store(settings: Settings) -> str:
    """Raises ConfigurationError for wrong settings, and DependencyUnavailable for a store that cannot be used now."""

    async def try_out() -> None:
        async with configured_store(settings) as store:
            await store.check()

    try:
        asyncio.run(try_out())
    except StoreUnavailable as error:
        raise DependencyUnavailable(f"{error.sentence}.") from None
    return f"ok ({settings.image_store})"


def check_provider(settings: Settings) -> str:
    """Raises ConfigurationError for wrong settings, and DependencyUnavailable where the provider's check fails."""

    async def try_out() -> str:
        pool = BoundedPool(threads=1, queue_max=1, name="check")
        try:
            async with configured_provider(settings, pool=pool) as provider:
                return await provider.check()
        finally:
            pool.close()

    try:
        found = asyncio.run(try_out())
    except ProviderUnavailable as error:
        raise DependencyUnavailable(f"{error.sentence}.") from None
    return f"{found} ({settings.image_provider})"


EVERYTHING: Mapping[str, Callable[[Settings], str]] = {
    "database": check_database,
    "redis": check_redis,
    "store": check_store,
    "provider": check_provider,
}
"""The checks by name. Each returns what it found, and raises ConfigurationError where that cannot be used."""


async def in_transaction(database_url: str, action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """What the action returns. Raises ConfigurationError where the database cannot be reached."""
    engine = create_engine(database_url, pool_size=1)
    try:
        async with async_sessionmaker(engine).begin() as session:
            return await action(session)
    except (SQLAlchemyError, PostgresError, OSError, TimeoutError) as error:
        raise ConfigurationError(why_unreachable(error)) from None
    finally:
        await engine.dispose()


def why_unreachable(error: Exception) -> str:
    """One sentence for the operator, which does not quote the URL."""
    sqlstate = str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")
    if sqlstate.startswith("28"):
        return "The database of DATABASE_URL refuses its user or password."
    if sqlstate == "3D000":
        return (
            "The database that DATABASE_URL names does not exist on its server. scripts/init-db.sh makes a local one."
        )
    return f"The database of DATABASE_URL cannot be reached ({type(error).__name__})."


async def _check_database(session: AsyncSession) -> None:
    for setting in ("fsync", "full_page_writes"):
        if await session.scalar(select(func.current_setting(setting))) != "on":
            raise ConfigurationError(
                f"The database runs with {setting}=off: what it calls written may be lost. Turn it on."
            )
    if await migrations.schema_state(await session.connection()) == "behind":
        raise ConfigurationError("The database's schema is behind this version. Run: nanobanana migrate")
