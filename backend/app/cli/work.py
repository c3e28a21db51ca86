"""`nanobanana work`: the checks before the start, and a worker for asynchronous generations."""

import click

from app import checks, deployment, worker
from app.cli.errors import errors_as_sentences, unread_output_dropped
from app.cli.start_checks import check_images, check_limits
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.core.stopping import signals_as_exits
from app.core.tracing import import_sdk


@click.command()
def work() -> None:
    """Draw asynchronous generations, and go on until Ctrl-C.

    Any number of workers may run, on any machine, beside the servers on the same DATABASE_URL. One that is stopped
    takes no further generation, gives back what no provider was asked for, and ends once the rest is drawn.
    """
    with unread_output_dropped(), errors_as_sentences(), signals_as_exits() as stop:
        settings = load_settings().with_secret()
        if settings.database_url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set. `nanobanana serve` draws the asynchronous generations of its own PostgreSQL."
            )
        warnings = check_limits(settings)
        import_sdk(settings)
        for warning in (*warnings, *check_images(settings)):
            click.echo(warning, err=True)
        checks.check_database(settings)
        deployment.claim(settings)
        worker.run(settings, stop)
