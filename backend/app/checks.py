"""Tries the database, Redis, the store and the provider of the settings: for `nanobanana check` and before a start."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from asyncpg import PostgresError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app import migrations
from app.core.db import create_engine
from app.core.pool import BoundedPool
from app.core.settings import ConfigurationError, Settings
from app.providers import ProviderUnavailable
from app.providers.configured import configured_provider
from app.ratelimit.batches import RedisUnavailable
from app.ratelimit.redis import ping_redis
from app.storage import StoreUnavailable
from app.storage.configured import configured_store
from app.storage.filesystem import FilesystemStore

Result = TypeVar("Result")


class DependencyUnavailable(ConfigurationError):
    """A dependency cannot be used now, but the server can start without it."""


def check_database(settings: Settings) -> str:
    """Raises ConfigurationError for a database that cannot be reached, may lose commits, or has an older schema."""
    if settings.database_url is None:
        return "ours, started by serve"
    asyncio.run(run_in_transaction(settings.database_url.get_secret_value(), _check_durability_and_schema))
    return "ok"


def check_redis(settings: Settings) -> str:
    """Raises ConfigurationError for a wrong URL, and DependencyUnavailable for a Redis that cannot be used."""
    if settings.redis_url is None:
        return "none"
    try:
        asyncio.run(ping_redis(settings.redis_url.get_secret_value()))
    except (ValueError, TypeError, AttributeError):  # an option in it that the client does not know
        raise ConfigurationError("REDIS_URL is not a URL that the Redis client can read.") from None
    except RedisUnavailable as error:
        raise DependencyUnavailable(f"The Redis of REDIS_URL cannot be used ({error.reason}).") from None
    return "ok"


def check_store(settings: Settings) -> str:
    """Raises ConfigurationError for wrong settings, DependencyUnavailable for a store that fails or is not reached."""

    async def open_and_check() -> str:
        async with configured_store(settings) as store:
            await store.check()
            if isinstance(store, FilesystemStore):
                return f"ok (disk, {store.free_bytes() / 1e9:.1f} GB free)"
            return "ok (s3)"

    try:
        return asyncio.run(open_and_check())
    except StoreUnavailable as error:
        raise DependencyUnavailable(f"{error.sentence}.") from None


def check_provider(settings: Settings) -> str:
    """Raises ConfigurationError for wrong settings, DependencyUnavailable for a provider that cannot be used now."""

    async def open_and_check() -> str:
        pool = BoundedPool(threads=1, queue_max=1, name="check")
        try:
            async with configured_provider(settings, drawing=pool, decoding=pool) as provider:
                return await provider.check()
        finally:
            pool.close()

    try:
        result = asyncio.run(open_and_check())
    except ProviderUnavailable as error:
        raise DependencyUnavailable(f"{error.sentence}.") from None
    return f"{result} ({settings.image_provider})"


CHECKS: Mapping[str, Callable[[Settings], str]] = {
    "database": check_database,
    "redis": check_redis,
    "store": check_store,
    "provider": check_provider,
}
"""The checks by the name of their dependency. Each returns its result as text, or raises ConfigurationError."""


async def run_in_transaction(database_url: str, action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """Runs the action in one transaction. Raises ConfigurationError where the database cannot be reached."""
    engine = create_engine(database_url, pool_size=1)
    try:
        async with async_sessionmaker(engine).begin() as session:
            return await action(session)
    except (SQLAlchemyError, PostgresError, OSError, TimeoutError) as error:
        raise ConfigurationError(unreachable_sentence(error)) from None
    finally:
        await engine.dispose()


def unreachable_sentence(error: Exception) -> str:
    """A sentence for the operator about a failed connection. It holds no part of the URL, which has the password."""
    sqlstate = str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")
    if sqlstate.startswith("28"):
        return "The database of DATABASE_URL refuses its user or password."
    if sqlstate == "3D000":
        return "The database of DATABASE_URL does not exist on its server. Make it, with `createdb NAME` for example."
    return f"The database of DATABASE_URL cannot be reached ({type(error).__name__})."


async def _check_durability_and_schema(session: AsyncSession) -> None:
    for setting in ("fsync", "full_page_writes"):
        if await session.scalar(select(func.current_setting(setting))) != "on":
            raise ConfigurationError(
                f"The database runs with {setting}=off: what it calls written may be lost. Turn it on."
            )
    if await migrations.schema_state(await session.connection()) == "behind":
        raise ConfigurationError("The database's schema is behind this version. Run: nanobanana migrate")
