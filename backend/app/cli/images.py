"""`nanobanana images`: an operator compares the images with the ledger, moves them, and has old ones deleted."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

import click
from sqlalchemy.ext.asyncio import async_sessionmaker

from app.assembly import open_services
from app.checks import unreachable_sentence
from app.cli.database import database_url_of, settings_of_command
from app.cli.days import DAY
from app.cli.errors import errors_as_sentences
from app.core.db import DATABASE_ERRORS, SessionMaker, create_engine
from app.core.image_settings import StoreName
from app.core.security import time_prefix
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings
from app.generations.move import Move
from app.generations.sweep import Sweeper
from app.generations.verify import Verification
from app.storage import StoreUnavailable
from app.storage.configured import opened_store

Result = TypeVar("Result")


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
        settings = settings_of_command()
        if settings.image_retention_days is None:
            raise ConfigurationError("IMAGE_RETENTION_DAYS is not set: images are kept until they are deleted.")
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


@images.command()
@click.option("--from", "first", type=DAY, help="Compare images made on this UTC day or later.")
@click.option("--to", "last", type=DAY, help="Compare images made on this UTC day or earlier.")
@click.option("--whole", is_flag=True, help="Read each image too, and prove that it is whole.")
@click.option("--delete-orphans", is_flag=True, help="Say what --yes would delete.")
@click.option("--yes", is_flag=True, help="With --delete-orphans: delete them.")
def verify(*, first: datetime | None, last: datetime | None, whole: bool, delete_orphans: bool, yes: bool) -> None:
    """Compare the ledger with the images in IMAGE_STORE: a line for each that is missing or orphaned.

    It holds nothing up, and may run at any time: what is drawn or deleted meanwhile is no fault. Ends with 1 if it has
    found any.
    """
    with errors_as_sentences():
        settings = load_settings()

        async def compare(sessions: SessionMaker) -> bool:
            async with opened_store(settings, settings.image_store) as store:
                verification = Verification(
                    sessions,
                    store,
                    first="" if first is None else time_prefix("gen", first),
                    end="~" if last is None else time_prefix("gen", last + timedelta(days=1)),
                    retention_days=settings.image_retention_days,
                    reads_all=whole,
                )
                return await _print_faults(verification, may_delete=delete_orphans, is_confirmed=yes)

        sys.exit(0 if asyncio.run(_on_database(settings, compare)) else 1)


async def _print_faults(verification: Verification, *, may_delete: bool, is_confirmed: bool) -> bool:
    """Whether there are none, or none any more."""
    found = {"missing": 0, "damaged": 0, "orphaned": 0}
    async for fault in verification.faults():
        found[fault.kind] += 1
        click.echo(f"{fault.name}: {fault.kind}")
    counts = ", ".join(f"{number} {kind}" for kind, number in found.items())
    click.echo(f"{verification.images} images and {verification.files} files compared: {counts}.")
    if may_delete and found["orphaned"]:
        found["orphaned"] -= await _delete_orphans(verification, found["orphaned"], is_confirmed=is_confirmed)
    return not any(found.values())


async def _delete_orphans(verification: Verification, orphans: int, *, is_confirmed: bool) -> int:
    """How many were deleted. Raises ConfigurationError where so many are orphaned that something else is wrong."""
    if not verification.is_plausible(orphans):
        raise ConfigurationError(
            "More than a tenth of the files are orphaned: has another deployment its images here, or is the database "
            "an older one? None was deleted."
        )
    if not is_confirmed:
        click.echo("Run it with --yes to delete the orphaned files that are an hour old or older.")
        return 0
    deleted = await verification.delete_orphans()
    click.echo(f"{deleted} orphaned files are deleted.")
    return deleted


@images.command()
@click.option("--to", "target", type=click.Choice(["disk", "s3"]), required=True, help="Where they are copied.")
def copy(*, target: StoreName) -> None:
    """Copy every image from one store to the other, while servers go on.

    Set IMAGE_STORE and SECOND_IMAGE_STORE to the two, and restart every server, before this. If it is interrupted, run
    it again: what was copied is not copied twice. Ends with 1, and names them, if images could not be copied.
    """
    with errors_as_sentences():
        settings = load_settings()
        if settings.second_image_store is None:
            click.echo(
                "SECOND_IMAGE_STORE is not set. If servers run without it, an image that is deleted while it is "
                f"copied may stay in {target}.",
                err=True,
            )
        is_complete = asyncio.run(_on_database(settings, lambda sessions: _copy(settings, sessions, target)))
        sys.exit(0 if is_complete else 1)


async def _copy(settings: Settings, sessions: SessionMaker, target: StoreName) -> bool:
    source: StoreName = "disk" if target == "s3" else "s3"
    async with opened_store(settings, source) as here, opened_store(settings, target) as there:
        move = Move(sessions, here, there)
        async for failed in move.run():
            for name, trouble in failed.items():
                click.echo(f"{name}: {trouble}")
            click.echo(f"{move.images} images looked at, up to {move.last_id}; {move.copied} copied.", err=True)
    click.echo(f"{move.images} images: {move.copied} copied to {target}, {move.failed} could not be copied.")
    return move.failed == 0


async def _on_database(settings: Settings, action: Callable[[SessionMaker], Awaitable[Result]]) -> Result:
    """What the action returns. Raises ConfigurationError where the database or a store cannot be reached."""
    engine = create_engine(database_url_of(settings), pool_size=2)
    try:
        return await action(async_sessionmaker(engine))
    except DATABASE_ERRORS as error:
        raise ConfigurationError(unreachable_sentence(error)) from None
    except StoreUnavailable as error:
        raise ConfigurationError(f"{error.sentence}.") from None
    finally:
        await engine.dispose()
