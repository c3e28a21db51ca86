"""`nanobanana images`: an operator confirms that old images are to be deleted."""

import asyncio

import click

from app.assembly import open_services
from app.cli.errors import errors_as_sentences
from app.core.embedded import running_url
from app.core.settings import ConfigurationError, Settings, load_settings
from app.generations.sweep import Sweeper


@click.group()
def images() -> None:
    """Look after the images that are kept."""


@images.command()
@click.option("--yes", is_flag=True, help="Delete them; without it, they are counted.")
def expire(*, yes: bool) -> None:
    """Delete all images that are older than IMAGE_RETENTION_DAYS.

    The server does so by itself, day by day, but stops where there are many more than a day's. Check the database's
    clock and the setting first: what is deleted is gone.
    """
    with errors_as_sentences():
        settings = load_settings().with_secret()
        if settings.image_retention_days is None:
            raise ConfigurationError("IMAGE_RETENTION_DAYS is not set: images are kept until they are deleted.")
        if settings.database_url is None:
            settings = settings.model_copy(update={"database_url": running_url(settings.data_dir)})
        old = asyncio.run(_expire(settings, is_confirmed=yes))
        click.echo(f"{old} images are older than {settings.image_retention_days} days by the database's clock.")
        click.echo("They are deleted." if yes else "Run it with --yes to delete them.")


async def _expire(settings: Settings, *, is_confirmed: bool) -> int:
    """How many images are too old; deletes them if that is confirmed."""
    async with open_services(settings) as services:
        sweeper = Sweeper(services.generations, services.engine, settings.image_retention_days, services.metrics)
        old = await sweeper.count_old()
        if is_confirmed:
            await sweeper.expire()
        return old
