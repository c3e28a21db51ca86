"""`nanobanana serve`: the checks before the start, the database, and the server."""

from contextlib import ExitStack

import click
from pydantic import SecretStr

from app import checks, server
from app.cli.database import upgrade_schema
from app.cli.errors import errors_as_sentences
from app.core.embedded import embedded_postgres
from app.core.settings import ConfigurationError, Settings, load_settings
from app.core.tracing import import_sdk


@click.command()
def serve() -> None:
    """Start the server, and keep it running until Ctrl-C.

    Without DATABASE_URL it starts a PostgreSQL of its own, with its data in DATA_DIR, migrates it, and stops it at the
    end. With DATABASE_URL it uses that one, and refuses to start where `nanobanana migrate` has not been run.
    """
    with errors_as_sentences(), server.signals_as_exits() as stop, ExitStack() as stack:
        settings = load_settings().with_secret()
        _check_shared_limits(settings)
        import_sdk(settings)
        listener = stack.enter_context(server.listening_socket(settings))
        _check_images(settings)
        settings = _with_database(settings, stack)
        checks.claim_currency(settings)
        listener.listen(server.BACKLOG)  # who is told the URL, can connect
        click.echo(server.start_message(settings), err=settings.log_stream == "stdout")
        server.run(settings, listener, stop)


def _check_shared_limits(settings: Settings) -> None:
    """Raises ConfigurationError where each worker would apply the limits alone, which multiplies them; warns where
    Redis does not answer.
    """
    if settings.redis_url is None:
        if settings.workers > 1:
            raise ConfigurationError(
                f"WORKERS is {settings.workers}, but each worker would hold the limits by itself. "
                "Set REDIS_URL to a Redis that they share, or WORKERS=1."
            )
        return
    try:
        checks.check_redis(settings)
    except checks.DependencyUnavailable as error:
        click.echo(f"{error} Until it can, each process limits by itself.", err=True)


def _check_images(settings: Settings) -> None:
    """Raises ConfigurationError for wrong settings of the store or the provider; only warns where one of them cannot
    be used now, since accounts, test keys and stored images need no provider.
    """
    for check in (checks.check_store, checks.check_provider):
        try:
            check(settings)
        except checks.DependencyUnavailable as error:
            click.echo(f"{error} Until that is mended, live keys may get no images.", err=True)


def _with_database(settings: Settings, stack: ExitStack) -> Settings:
    """The settings with the URL of a database whose schema is current; `stack` stops an embedded PostgreSQL."""
    if settings.database_url is None:
        url = stack.enter_context(embedded_postgres(settings.data_dir, when_lost=server.stop_this_process))
        upgrade_schema(url)
        return settings.model_copy(update={"database_url": SecretStr(url)})
    checks.check_database(settings)
    return settings
