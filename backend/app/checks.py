"""Tries the database, Redis, store, providers and Stripe of the settings: for `nanobanana check` and before a start."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLError
from typing import TypeVar

from asyncpg.exceptions import TargetServerAttributeNotMatched
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app import migrations
from app.catalogue.configured import catalogue_of
from app.catalogue.model import Route
from app.catalogue.opened import open_catalogue
from app.catalogue.routing import OpenRoute
from app.core.database_connection import is_shared_by_transaction
from app.core.database_fitness import unfit_sentence
from app.core.database_url import parse_database_url
from app.core.db import DATABASE_ERRORS, connect_for_writing, create_engine
from app.core.embedded import EmbeddedPostgresError, NotRunningError, running_url
from app.core.fair_queue import FairPool
from app.core.image_settings import StoreName
from app.core.metrics import Metrics
from app.core.settings import ConfigurationError, Settings
from app.core.unreachable import reason_unreachable
from app.generations.jobs.overview import find_classes
from app.payments import StripeRefused, StripeUnavailable
from app.payments.opened import open_stripe
from app.providers import ProviderUnavailable
from app.ratelimit.batches import RedisUnavailable
from app.ratelimit.redis import ping_redis
from app.storage import NEARLY_FULL_BYTES, StoreUnavailable
from app.storage.configured import opened_store

Result = TypeVar("Result")

_ROUTES_AT_A_TIME = 10
_JOBS_WAIT_SECONDS = 60  # a worker looks every second
_COMMAND_SECONDS_MAX = 86_400  # for all of a command; each of its statements has a deadline of its own


class DependencyUnavailable(ConfigurationError):
    """A dependency cannot be used now, but the server can start without it."""


def check_database(settings: Settings) -> str:
    """Raises ConfigurationError for a database that cannot be reached or used, or has an older schema."""
    if settings.database_url is None:
        return _check_built_in_database(settings)
    return asyncio.run(_check_database(settings.database_url.get_secret_value(), settings.database_direct_url))


def _check_built_in_database(settings: Settings) -> str:
    try:
        url = running_url(settings.data_dir)
    except NotRunningError:
        return "not running: `nanobanana serve` starts it"
    except EmbeddedPostgresError as error:
        raise ConfigurationError(str(error)) from None
    result = asyncio.run(_check_database(url, None, setting="DATA_DIR"))
    return f"ok, built in{result.removeprefix('ok')}"


def check_redis(settings: Settings) -> str:
    """Raises ConfigurationError for a wrong URL, and DependencyUnavailable for a Redis that cannot be used."""
    if settings.redis_url is None:
        return "none"
    try:
        asyncio.run(ping_redis(settings.redis_url.get_secret_value()))
    except (ValueError, TypeError, AttributeError):  # an option in it that the client does not know
        raise ConfigurationError("REDIS_URL is not a URL that the Redis client can read.") from None
    except RedisUnavailable as error:
        raise DependencyUnavailable(error.sentence) from None
    return "ok"


def check_store(settings: Settings) -> str:
    """Raises ConfigurationError for wrong settings, DependencyUnavailable for a store that fails or is not reached."""
    try:
        results = [asyncio.run(_check_store(settings, name)) for name in _names_of_stores(settings)]
    except StoreUnavailable as error:
        raise DependencyUnavailable(f"{error.sentence}.") from None
    return ", and second: ".join(results)


def _names_of_stores(settings: Settings) -> Sequence[StoreName]:
    second = settings.second_image_store
    return [settings.image_store] if second is None else [settings.image_store, second]


async def _check_store(settings: Settings, name: StoreName) -> str:
    async with opened_store(settings, name) as store:
        await store.check()
        free_bytes = await store.free_bytes()
    if free_bytes is None:
        return f"ok ({name})"
    space = f"{name}, {free_bytes / 1e9:.1f} GB free"
    return f"ok ({space})" if free_bytes >= NEARLY_FULL_BYTES else f"nearly full ({space})"


def check_provider(settings: Settings) -> str:
    """Raises ConfigurationError for wrong settings, DependencyUnavailable for a provider that cannot be used now."""
    routes = asyncio.run(check_routes(settings))
    if settings.models_file is None:
        [only] = routes
        if only.failure is not None:
            raise DependencyUnavailable(f"{only.failure}.")
        return f"{only.result} ({settings.image_provider})"
    failures = [f"Route {each.route.name}: {each.failure}." for each in routes if each.failure is not None]
    if failures:
        raise DependencyUnavailable("\n".join(failures))
    return f"ok ({len(routes)} routes)"


@dataclass(frozen=True)
class RouteCheck:
    """What a request that costs nothing has shown of a route: `result`, or the sentence in `failure`."""

    model: str
    route: Route
    result: str = ""
    failure: str | None = None


async def check_routes(settings: Settings) -> Sequence[RouteCheck]:
    """Tries every route of every model, some at a time. Raises ConfigurationError for wrong settings."""
    catalogue = catalogue_of(settings)
    names = _names_of_settings(settings)
    turns = asyncio.Semaphore(_ROUTES_AT_A_TIME)

    async def check(model: str, opened: OpenRoute) -> RouteCheck:
        async with turns:
            try:
                return RouteCheck(model, opened.route, await opened.provider.check())
            except ProviderUnavailable as error:
                return RouteCheck(model, opened.route, failure=error.sentence.format(**names))

    pool = FairPool(threads=1, queue_max=1, name="check")
    try:
        async with open_catalogue(catalogue, settings, drawing=pool, decoding=pool, metrics=Metrics()) as opened:
            checks = [check(model, route) for model, routes in opened.routes.items() for route in routes]
            return await asyncio.gather(*checks)
    finally:
        pool.close()


def _names_of_settings(settings: Settings) -> Mapping[str, str]:
    """How an operator calls the key, the model and the address that a check finds fault with."""
    if settings.models_file is not None:
        return {name: f"its {name}" for name in ("key", "model", "base_url")}
    provider = settings.image_provider.upper()
    return {"key": f"{provider}_API_KEY", "model": f"{provider}_MODEL", "base_url": f"{provider}_BASE_URL"}


def check_stripe(settings: Settings) -> str:
    """Raises ConfigurationError for a key that Stripe refuses, DependencyUnavailable where Stripe cannot be asked."""
    if settings.stripe_secret_key is None:
        return "none"
    try:
        asyncio.run(_check_stripe(settings))
    except StripeUnavailable:
        raise DependencyUnavailable("Stripe cannot be reached.") from None
    except StripeRefused as error:
        raise ConfigurationError(f"STRIPE_SECRET_KEY cannot be used. {error}.") from None
    return "ok (live)" if settings.stripe_is_live else "ok (test key: no money moves)"


async def _check_stripe(settings: Settings) -> None:
    async with open_stripe(settings) as stripe:
        if stripe is not None:
            await stripe.check()


CHECKS: Mapping[str, Callable[[Settings], str]] = {
    "database": check_database,
    "redis": check_redis,
    "store": check_store,
    "provider": check_provider,
    "stripe": check_stripe,
}
"""The checks by the name of their dependency. Each returns its result as text, or raises ConfigurationError."""


async def run_in_transaction(
    database_url: str, action: Callable[[AsyncSession], Awaitable[Result]], *, is_shared: bool = False
) -> Result:
    """Runs the action in one transaction; rows that it returns can be read afterwards. Raises ConfigurationError where
    the database cannot be reached, or does not do what the action asks for.
    """
    engine = create_engine(database_url, pool_size=1, is_shared=is_shared, use_seconds_max=_COMMAND_SECONDS_MAX)
    try:
        async with async_sessionmaker(engine, expire_on_commit=False).begin() as session:
            return await action(session)
    except DATABASE_ERRORS as error:
        raise ConfigurationError(unreachable_sentence(error)) from None
    finally:
        await engine.dispose()


def unreachable_sentence(error: Exception, *, setting: str = "DATABASE_URL") -> str:
    """A sentence for the operator about a connection or a statement that failed. It holds no part of the URL, which has
    the password, and no value.
    """
    cause = getattr(error, "driver_exception", None) or error
    sqlstate = str(getattr(cause, "sqlstate", None) or "")
    if isinstance(cause, TargetServerAttributeNotMatched):
        said = "can only be read, all hosts of it: none is a primary."
    elif isinstance(cause, SSLError):
        said = "shows no certificate that its sslmode trusts, or speaks no TLS that this program does."
    elif type(cause) is ConnectionError:
        said = "speaks no TLS, which its sslmode asks for."
    elif isinstance(cause, TimeoutError):
        said = "does not answer."
    else:
        unknown = f"cannot be reached ({reason_unreachable(cause)})."
        said = _SAID_BY_SQLSTATE.get(sqlstate) or _SAID_BY_SQLSTATE.get(sqlstate[:2], unknown)
    return f"The database of {setting} {said}"


_SAID_BY_SQLSTATE = {
    "22": "cannot take a value that it was given: a number is too large, or a text is not of Unicode.",
    "28": "refuses its user or password.",
    "28000": "does not let its user in: there is no such role, or no line for it, from here and with this sslmode, in "
    "the server's pg_hba.conf.",
    "3D000": "does not exist on its server. Make it with scripts/init-db.sh.",
    "53300": "has no connection left for its user.",
    "54": "cannot take a value that it was given: it is too long.",
    "55P03": "keeps what is to be changed locked for somebody else; try again.",
    "57014": "has cancelled what took too long; try again.",
    "57P03": "is starting or stopping.",
}
"""By the whole code of an error, or by the class that it begins with."""


async def _check_database(database_url: str, direct_url: SecretStr | None, *, setting: str = "DATABASE_URL") -> str:
    writing_url = direct_url.get_secret_value() if direct_url else database_url
    setting = "DATABASE_DIRECT_URL" if direct_url else setting
    try:
        is_shared = await is_shared_by_transaction(parse_database_url(writing_url))
        if not is_shared:
            await (await connect_for_writing(writing_url)).close()
    except DATABASE_ERRORS as error:
        raise ConfigurationError(unreachable_sentence(error, setting=setting)) from None
    if is_shared:
        raise ConfigurationError(
            f"The database of {setting} is behind a pooler in transaction mode, where recording and migrations cannot "
            "work. Set DATABASE_DIRECT_URL to the same database without the pooler, or use its session mode."
        )
    state = await run_in_transaction(database_url, check_fitness, is_shared=direct_url is not None)
    if state == "behind":
        raise ConfigurationError("The database's schema is behind this version. Run: nanobanana migrate")
    if state == "newer":
        return "ok, with a schema that is newer than this program"
    return await run_in_transaction(database_url, _with_jobs, is_shared=direct_url is not None)


async def _with_jobs(session: AsyncSession) -> str:
    classes = await find_classes(session)
    waiting, running = sum(each.waiting for each in classes), sum(each.running for each in classes)
    if not waiting or running or max(each.oldest_seconds for each in classes) < _JOBS_WAIT_SECONDS:
        return "ok"
    return f"ok, but {waiting} asynchronous images wait, and no worker has any: is one running?"


async def check_fitness(session: AsyncSession) -> migrations.SchemaState:
    """How far the schema is. Raises ConfigurationError for a database that cannot be used, now or after a migration."""
    connection = await session.connection()
    if sentence := await unfit_sentence(connection):
        raise ConfigurationError(sentence)
    state = await migrations.schema_state(connection)
    if state == "foreign":
        raise ConfigurationError("The database has the schema of another program. Name a database of its own.")
    return state
