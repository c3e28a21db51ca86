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
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import checks, server
from app.checks import in_transaction, why_unreachable
from app.core import migrations
from app.core.embedded import EmbeddedPostgresError, embedded_postgres, running_url
from app.core.settings import ConfigurationError, Settings, load_settings
from app.features.keys import limits as key_limits
from app.features.keys.service import set_account_active
from app.features.usage.service import find_days, find_differences

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
        _check_pictures(settings)
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

    Says of each what it found. Ends with 1 if any of them cannot be used. Nothing that costs is asked for.
    """
    with _sentences_for_errors():
        settings = load_settings().with_secret()
    can_be_used = True
    for name, try_out in checks.EVERYTHING.items():
        try:
            found = try_out(settings)
        except ConfigurationError as error:
            found, can_be_used = str(error), False
        click.echo(f"{name}: {found}")
    sys.exit(0 if can_be_used else 1)


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
    return asyncio.run(in_transaction(given.get_secret_value() if given else running_url(settings.data_dir), action))


def _with_database(settings: Settings, stack: ExitStack) -> Settings:
    if settings.database_url is None:
        url = stack.enter_context(embedded_postgres(settings.data_dir))
        _migrate(url)
        return settings.model_copy(update={"database_url": SecretStr(url)})
    checks.check_database(settings)
    return settings


def _migrate(database_url: str) -> None:
    try:
        migrations.upgrade(database_url)
    except (SQLAlchemyError, PostgresError, OSError, TimeoutError) as error:
        if isinstance(error, DBAPIError):
            raise ConfigurationError(f"The migration stopped; run it again, and it goes on: {error.orig}") from None
        raise ConfigurationError(why_unreachable(error)) from None


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
        checks.check_redis(settings)
    except checks.AwayError as error:
        click.echo(f"{error} Until it can, each process limits by itself.", err=True)


def _check_pictures(settings: Settings) -> None:
    """Raises ConfigurationError where a setting of the store is wrong; tells where it or the provider is of no use now:
    accounts, test keys and pictures that are there need no provider.
    """
    for check in (checks.check_store, checks.check_provider):
        try:
            check(settings)
        except checks.AwayError as error:
            click.echo(f"{error} Until that is mended, live keys may get no pictures.", err=True)


if __name__ == "__main__":
    main()
