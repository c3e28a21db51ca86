"""The command line: `nanobanana serve | migrate | check | accounts | limits | usage`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

import click
from asyncpg import PostgresError
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app import server
from app.core import migrations
from app.core.db import create_engine
from app.core.embedded import EmbeddedPostgresError, embedded_postgres, running_url
from app.core.pool import BoundedPool
from app.core.settings import ConfigurationError, Settings, load_settings
from app.features.keys import limits as key_limits
from app.features.keys.service import set_account_active
from app.features.usage.service import find_days, find_differences
from app.providers.configured import configured_provider
from app.ratelimit.redis import OutOfReach, check_redis
from app.storage import StoreUnavailable
from app.storage.configured import configured_store

Result = TypeVar("Result")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nanobanana")
def main() -> None:
    """NanoBanana: an image-generation API platform that anyone can run.

    Settings come from environment variables and from .env; .env.example lists every one of them.
    """


@main.command()
def serve() -> None:
    """Start the server, and keep it running until Ctrl-C.

    Without DATABASE_URL it starts a PostgreSQL of its own, with its data in DATA_DIR, migrates it, and stops it at the
    end. With DATABASE_URL it uses that one, and refuses to start where `nanobanana migrate` has not been run.
    """
    with _sentences_for_errors(), server.signals_as_exits() as stop, ExitStack() as stack:
        settings = load_settings().with_secret()
        _check_limits(settings)
        listener = stack.enter_context(server.listening(settings))
        asyncio.run(_check_pictures(settings))
        settings = _with_database(settings, stack)
        click.echo(server.welcome(settings))
        server.run(settings, listener, stop)


@main.command()
def migrate() -> None:
    """Bring the database to this version's schema.

    Safe to run from several machines at once. Without DATABASE_URL there is nothing to do: `serve` migrates its own
    PostgreSQL by itself.
    """
    with _sentences_for_errors():
        url = load_settings().database_url
        if url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set. `nanobanana serve` migrates its own PostgreSQL by itself."
            )
        _migrate(url.get_secret_value())
        click.echo("The database's schema is up to date.")


@main.command()
def check() -> None:
    """Try everything that the settings name: the database, Redis, where pictures are kept, and who draws them.

    Ends with 1, and says what is wrong, if anything cannot be used. Nothing that costs is asked for.
    """
    with _sentences_for_errors():
        settings = load_settings().with_secret()
        if settings.database_url is not None:
            asyncio.run(_in_transaction(settings.database_url.get_secret_value(), _check_database))
        click.echo(f"database: {'ok' if settings.database_url else 'ours, started by serve'}")
        if settings.redis_url is not None:
            _check_redis(settings.redis_url.get_secret_value())
        click.echo(f"redis: {'ok' if settings.redis_url else 'none'}")
        asyncio.run(_check_pictures(settings))
        click.echo(f"pictures: kept ({settings.image_store}), drawn ({settings.image_provider})")


async def _check_pictures(settings: Settings) -> None:
    pool = BoundedPool(threads=1, queue_max=1, name="check")
    try:
        async with configured_store(settings) as store, configured_provider(settings, pool=pool):
            await store.check()
    except StoreUnavailable as error:
        raise ConfigurationError(error.sentence) from None
    finally:
        pool.close()


@main.group()
def accounts() -> None:
    """Disable and enable accounts."""


@accounts.command()
@click.argument("email")
def disable(email: str) -> None:
    """Stop the account EMAIL: its login tokens, its sessions and all its keys are refused at once."""
    _set_active(email, active=False)


@accounts.command()
@click.argument("email")
def enable(email: str) -> None:
    """Let the account EMAIL work again, with the keys that it had."""
    _set_active(email, active=True)


def _set_active(email: str, *, active: bool) -> None:
    with _sentences_for_errors():
        if not _run_on_database(partial(set_account_active, email=email, active=active)):
            raise ConfigurationError("There is no account with that email.")
        click.echo(f"The account is {'enabled' if active else 'disabled'}.")


@main.group()
def limits() -> None:
    """Give keys and accounts limits of their own."""


@limits.command("set")
@click.argument("owner", metavar="KEY_ID|EMAIL")
@click.option("--generate", help="Pictures of the key, or of all the account's keys together: 600/minute, or default.")
@click.option("--generate-per-key", help="Pictures of each key of the account: 600/minute, or default.")
@click.option("--concurrency", help="Generations at a time of the key, or of each key of the account: 100, or default.")
def set_limits(owner: str, generate: str | None, generate_per_key: str | None, concurrency: str | None) -> None:
    """Set limits of the key KEY_ID, or of the account EMAIL; what is not named stays.

    A key's own limit goes before its account's, and that before the settings'. Every process knows within ten seconds.
    """
    with _sentences_for_errors():
        change = {
            "generate_limit": generate,
            "generate_limit_per_key": generate_per_key,
            "generate_concurrency": concurrency,
        }
        chosen = {name: text for name, text in change.items() if text is not None}
        if not _run_on_database(partial(key_limits.set_limits, owner=owner, change=key_limits.read_change(chosen))):
            raise ConfigurationError("There is no such key or account.")
        click.echo("The limits are set.")


@limits.command("show")
@click.argument("email")
def show_limits(email: str) -> None:
    """Show what was set for the account EMAIL and for its keys."""
    with _sentences_for_errors():
        found = _run_on_database(partial(key_limits.find_limits, email=email))
        if not found:
            raise ConfigurationError("There is no account with that email.")
        for each in found:
            told = ", ".join(f"{name} {value or 'default'}" for name, value in each.values.items())
            click.echo(f"{each.owner}: {told}")


@main.group()
def usage() -> None:
    """Look after what was counted."""


@usage.command()
def reconcile() -> None:
    """Prove that usage equals the ledger: for every key and UTC day, the counter and the delivered generations.

    It reads day by day and holds nothing up. Ends with 1, and says where, if there is a difference.
    """
    with _sentences_for_errors():
        days = _run_on_database(find_days)
        differences = [each for day in days for each in _run_on_database(partial(find_differences, day=day))]
        for each in differences:
            click.echo(f"{each.date} {each.key_id}: counted {each.counted}, recorded {each.recorded}")
        click.echo(f"{len(days)} days compared, {len(differences)} differences.")
        sys.exit(1 if differences else 0)


def _run_on_database(action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """In a transaction on the database of DATABASE_URL, or on that of the server that runs on DATA_DIR."""
    settings = load_settings()
    given = settings.database_url
    return asyncio.run(_in_transaction(given.get_secret_value() if given else running_url(settings.data_dir), action))


def _with_database(settings: Settings, stack: ExitStack) -> Settings:
    if settings.database_url is None:
        url = stack.enter_context(embedded_postgres(settings.data_dir))
        _migrate(url)
        return settings.model_copy(update={"database_url": SecretStr(url)})
    asyncio.run(_in_transaction(settings.database_url.get_secret_value(), _check_database))
    return settings


async def _check_database(session: AsyncSession) -> None:
    for setting in ("fsync", "full_page_writes"):
        if await session.scalar(select(func.current_setting(setting))) != "on":
            raise ConfigurationError(
                f"The database runs with {setting}=off: what it calls written may be lost. Turn it on."
            )
    if await migrations.schema_state(await session.connection()) == "behind":
        raise ConfigurationError("The database's schema is behind this version. Run: nanobanana migrate")


async def _in_transaction(database_url: str, action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    engine = create_engine(database_url, pool_size=1)
    try:
        async with async_sessionmaker(engine).begin() as session:
            return await action(session)
    except (SQLAlchemyError, PostgresError, OSError, TimeoutError) as error:
        raise ConfigurationError(_why_unreachable(error)) from None
    finally:
        await engine.dispose()


def _why_unreachable(error: Exception) -> str:
    sqlstate = str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")
    if sqlstate.startswith("28"):
        return "The database of DATABASE_URL refuses its user or password."
    if sqlstate == "3D000":
        return (
            "The database that DATABASE_URL names does not exist on its server. scripts/init-db.sh makes a local one."
        )
    return f"The database of DATABASE_URL cannot be reached ({type(error).__name__})."


def _migrate(database_url: str) -> None:
    try:
        migrations.upgrade(database_url)
    except (SQLAlchemyError, PostgresError, OSError, TimeoutError) as error:
        if isinstance(error, DBAPIError):
            raise ConfigurationError(f"The migration failed, and nothing was changed: {error.orig}") from None
        raise ConfigurationError(_why_unreachable(error)) from None


@contextmanager
def _sentences_for_errors() -> Iterator[None]:
    try:
        yield
    except (ConfigurationError, EmbeddedPostgresError) as error:
        click.echo(f"nanobanana: {error}", err=True)
        sys.exit(1)


def _check_limits(settings: Settings) -> None:
    """Raises ConfigurationError where limits would be multiplied by the workers; warns where Redis does not answer."""
    if settings.redis_url is None:
        if settings.workers > 1:
            raise ConfigurationError(
                f"WORKERS is {settings.workers}, but each worker would hold the limits by itself. "
                "Set REDIS_URL to a Redis that they share, or WORKERS=1."
            )
        return
    try:
        _check_redis(settings.redis_url.get_secret_value())
    except _RedisOutOfReachError as error:
        click.echo(f"{error} Until it can, each process limits by itself.", err=True)


class _RedisOutOfReachError(ConfigurationError):
    """Redis does not answer, which is no reason not to start."""


def _check_redis(url: str) -> None:
    try:
        asyncio.run(check_redis(url))
    except (ValueError, TypeError, AttributeError):  # an option in it that the client does not know
        raise ConfigurationError("REDIS_URL is not a URL that the Redis client can read.") from None
    except OutOfReach as error:
        raise _RedisOutOfReachError(f"The Redis of REDIS_URL cannot be used ({error.reason}).") from None


if __name__ == "__main__":
    main()
