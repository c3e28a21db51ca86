"""The command line: `nanobanana serve`, `nanobanana migrate`."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType

import click
import uvicorn
from asyncpg import PostgresError
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from uvicorn.supervisors import Multiprocess

from app.core import migrations
from app.core.db import create_engine
from app.core.embedded import EmbeddedPostgresError, embedded_postgres
from app.core.logs import configure_logging
from app.core.settings import ConfigurationError, Settings, load_settings
from app.main import create_app

_GRACE_SECONDS = 30  # longer than any request may take


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
    with _sentences_for_errors(), _signals_as_exits(), ExitStack() as stack:
        settings = load_settings().with_secret()
        listener = stack.enter_context(_listener(settings))
        settings = _with_database(settings, stack)
        _warn(settings)
        click.echo(_welcome(settings))
        _run(settings, listener)


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


def _with_database(settings: Settings, stack: ExitStack) -> Settings:
    if settings.database_url is not None:
        asyncio.run(_check_schema(settings.database_url.get_secret_value()))
        return settings
    url = stack.enter_context(embedded_postgres(settings.data_dir))
    _migrate(url)
    return settings.model_copy(update={"database_url": SecretStr(url)})


async def _check_schema(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    try:
        async with engine.connect() as connection:
            state = await migrations.schema_state(connection)
    except (SQLAlchemyError, PostgresError, OSError, TimeoutError) as error:
        raise ConfigurationError(_why_unreachable(error)) from None
    finally:
        await engine.dispose()
    if state == "behind":
        raise ConfigurationError("The database's schema is behind this version. Run: nanobanana migrate")


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
def _listener(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, taken before anything else is started: a port in use is told at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another with HOST and PORT."
        ) from None
    with listener:
        yield listener


def _run(settings: Settings, listener: socket.socket) -> None:
    config = uvicorn.Config(
        partial(_worker_app, settings),
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # it would believe whatever a client on this machine claims
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    configure_logging(settings.log_level)
    listener.listen(config.backlog)
    if settings.workers > 1:
        Multiprocess(config, sockets=[listener]).run()
    else:
        uvicorn.Server(config).run(sockets=[listener])


def _worker_app(settings: Settings) -> FastAPI:
    configure_logging(settings.log_level)
    return create_app(settings)


@contextmanager
def _sentences_for_errors() -> Iterator[None]:
    try:
        yield
    except (ConfigurationError, EmbeddedPostgresError) as error:
        click.echo(f"nanobanana: {error}", err=True)
        sys.exit(1)


@contextmanager
def _signals_as_exits() -> Iterator[None]:
    """SIGTERM and Ctrl-C unwind the stack, so that whatever was started is stopped.

    The server raises the signal that ended it once more after its own clean-up; by default that would end this process
    on the spot, past every `finally`.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _warn(settings: Settings) -> None:
    if settings.workers > 1:
        click.echo("Limits are kept by each worker for itself: together they allow WORKERS times as much.", err=True)
    if settings.redis_url is not None:
        click.echo("REDIS_URL is set, but nothing is kept in Redis yet: limits live in each process.", err=True)


def _welcome(settings: Settings) -> str:
    url = settings.public_url
    as_json = "-H 'Content-Type: application/json'"
    account = """-d '{"email":"you@example.com","password":"a long password"}'"""
    log_in = f"curl -s {url}/v1/auth/login {as_json} {account} {_pick('access_token')}"
    create_key = f"""curl -s {url}/v1/keys -H "Authorization: Bearer $({log_in})" {as_json} -d '{{"name":"first"}}'"""
    return f"""
  NanoBanana is at {url}   (reference: {url}/docs, stop: Ctrl-C)

  Your first picture, in three lines for another terminal:

curl -s {url}/v1/auth/register {as_json} {account}
KEY=$({create_key} {_pick("key")})
curl -s {url}/v1/generate -H "Authorization: Bearer $KEY" {as_json} -d '{{"prompt":"A cute banana"}}'

  The "url" of the last answer is the picture.
"""


def _pick(field: str) -> str:
    return f"""| sed 's/.*"{field}":"\\([^"]*\\)".*/\\1/'"""


if __name__ == "__main__":
    main()
