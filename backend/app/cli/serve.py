"""`nanobanana serve`: the checks before the start, the database, and the server."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import click
from pydantic import SecretStr

from app import checks, deployment, server
from app.cli.database import upgrade_schema
from app.cli.errors import errors_as_sentences, unread_output_dropped
from app.cli.start_checks import check_images, check_limits, check_payments
from app.cli.start_message import start_message
from app.core.embedded import embedded_postgres
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings
from app.core.stopping import signals_as_exits, stop_this_process
from app.core.tracing import import_sdk


@click.command()
def serve() -> None:
    """Start the server, and keep it running until Ctrl-C.

    Without DATABASE_URL it starts a PostgreSQL of its own, with its data in DATA_DIR, migrates it, and stops it at the
    end. With DATABASE_URL it uses that one, and refuses to start where `nanobanana migrate` has not been run.
    """
    with unread_output_dropped(), errors_as_sentences(), signals_as_exits() as stop, ExitStack() as stack:
        given = load_settings().with_secret()
        warnings = _check_shared_limits(given)
        import_sdk(given)
        listener = stack.enter_context(server.listening_socket(given))
        for warning in (*warnings, *check_images(given), *check_payments(given)):
            click.echo(warning, err=True)
        settings = _with_database(given, stack)
        deployment.claim(settings)
        for warning in deployment.find_gone_plans(settings):
            click.echo(warning, err=True)
        listener.listen(server.BACKLOG)  # who is told the URL, can connect
        click.echo(start_message(settings), err=settings.log_stream == "stdout")
        server.run(settings, listener, stop, reread=partial(_reread, given, settings))


def _reread(given: Settings, running: Settings) -> tuple[Settings, Sequence[str]]:
    """The settings as they are now, and sentences of warning. `given` were those at the start, and `running` are the
    same with the URL of the embedded database.

    Raises ConfigurationError for settings that cannot be used, or that a reload cannot change.
    """
    now = load_settings().with_secret()
    changed = [name.upper() for name in _FIXED if getattr(now, name) != getattr(given, name)]
    if (now.database_url is None) != (given.database_url is None):
        changed.append("DATABASE_URL")
    if changed:
        raise ConfigurationError(f"{' and '.join(changed)} cannot be changed by a reload: restart the server.")
    warnings = [*_check_shared_limits(now), *check_images(now), *check_payments(now)]
    if now.database_url is None:
        now = now.model_copy(update={"database_url": running.database_url})
    else:
        checks.check_database(now)
    deployment.claim(now)
    return now, [*warnings, *deployment.find_gone_plans(now)]


_FIXED = ("host", "port", "workers", "data_dir", "drain_seconds")


def _check_shared_limits(settings: Settings) -> Sequence[str]:
    """Raises ConfigurationError where each worker would apply the limits alone, which multiplies them; returns a
    sentence of warning where Redis does not answer.
    """
    if settings.redis_url is None and settings.workers > 1:
        raise ConfigurationError(
            f"WORKERS is {settings.workers}, but each worker would hold the limits by itself. "
            "Set REDIS_URL to a Redis that they share, or WORKERS=1."
        )
    return check_limits(settings)


def _with_database(settings: Settings, stack: ExitStack) -> Settings:
    """The settings with the URL of a database whose schema is current; `stack` stops an embedded PostgreSQL."""
    if settings.database_url is None:
        url = stack.enter_context(embedded_postgres(settings.data_dir, when_lost=stop_this_process))
        upgrade_schema(url)
        return settings.model_copy(update={"database_url": SecretStr(url)})
    checks.check_database(settings)
    return settings
