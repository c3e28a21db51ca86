"""`nanobanana jobs`: an operator looks at asynchronous generations, cancels them, and has them drawn after all."""

import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import click
from sqlalchemy import or_

from app.cli.accounts import OWNER, find_account
from app.cli.database import pages_on_database, run_on_database
from app.cli.errors import errors_as_sentences
from app.cli.output import Form, Row, as_json, print_facts, print_rows
from app.core.settings import ConfigurationError
from app.features.keys.administration import key_named
from app.generations.jobs import administration, overview
from app.generations.jobs.administration import Change
from app.generations.jobs.job import EXPIRES_SECONDS_MAX
from app.generations.jobs.overview import ClassSummary, JobImage, JobSummary, LaneSummary
from app.models import ApiKey, Lane

_CLASS_WIDTHS = {"class": 5, "waiting": 9, "running": 9, "oldest_seconds": 14}
_LANE_WIDTHS = {"account_id": 24, "email": 30, "class": 5, "waiting": 9, "running": 9, "most": 6, "weight": 6}
_JOB_WIDTHS = {"id": 34, "class": 5, "status": 10, "images": 6, "attempts": 8, "created_at": 27, "expires_at": 27}
_IMAGE_WIDTHS = {"id": 34, "status": 10, "error": 20, "route": 14, "tries": 5, "cost": 9, "delivered_at": 27}
_OF_IMAGE = {*_IMAGE_WIDTHS, "deleted_at", "provider_request_id", "provider"}
_LANES_SHOWN = 20

Summary = ClassSummary | LaneSummary | JobSummary | JobImage


@click.group()
def jobs() -> None:
    """Look at asynchronous generations, cancel them, and have them drawn after all."""


@jobs.command()
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("--account", "owner", metavar=OWNER, help="What the account has waiting and running.")
@as_json
def show(job_id: str | None, owner: str | None, form: Form) -> None:
    """Print how much waits and runs, and whose it is; or all about one job, by its id or that of one of its images."""
    with errors_as_sentences():
        if job_id is not None and owner is not None:
            raise click.UsageError("Name a job or an account.")
        if job_id is not None:
            _show_job(job_id, form)
        elif owner is not None:
            _show_account(owner, form)
        else:
            print_rows(_rows(run_on_database(overview.find_classes)), _CLASS_WIDTHS, form=form)
            busy = partial(overview.find_lanes, which=or_(Lane.waiting > 0, Lane.running > 0), limit=_LANES_SHOWN)
            _print_next(_rows(run_on_database(busy)), _LANE_WIDTHS, form)


@jobs.command()
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--account", "owner", metavar=OWNER, help="All that the account has waiting.")
@click.option("--key", "key_id", metavar="KEY_ID", help="All that waits under the key.")
@click.option("--yes", is_flag=True, help="Cancel them; without it, they are counted.")
def cancel(job_ids: tuple[str, ...], owner: str | None, key_id: str | None, *, yes: bool) -> None:
    """Cancel jobs that no provider was asked for yet.

    Ends with 1 if one of those that were named cannot be cancelled any more.
    """
    with errors_as_sentences():
        if [bool(job_ids), owner is not None, key_id is not None].count(True) != 1:
            raise click.UsageError("Name jobs, an account or a key.")
        if job_ids:
            _change_each(job_ids, administration.cancel, "cancelled", is_confirmed=yes)
            return
        own = key_named(key_id, is_exact=True) if key_id else ApiKey.account_id == find_account(owner or "").account_id
        if yes:
            cancelled = run_on_database(partial(administration.cancel_waiting, which=own))
            click.echo(f"{cancelled} images are cancelled.")
        else:
            waiting = run_on_database(partial(administration.count_waiting, which=own))
            click.echo(f"{waiting} images wait. Run it with --yes to cancel them.")


@jobs.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--expires", default="20h", help="How long they may wait, such as 30m or 20h; at most 20h, which is the default."
)
@click.option("--yes", is_flag=True, help="Requeue them; without it, it is said what would become of each.")
def requeue(job_ids: tuple[str, ...], expires: str, *, yes: bool) -> None:
    """Have jobs wait again that failed, were lost or cancelled.

    A job that a provider was asked for may be paid twice. Ends with 1 if one cannot be requeued.
    """
    with errors_as_sentences():
        change = partial(administration.requeue, expires_seconds=_seconds(expires))
        _change_each(job_ids, change, "queued", is_confirmed=yes)


@jobs.command()
@click.argument("owner", metavar=OWNER)
@click.argument("number", metavar="N", type=click.IntRange(1, 1000))
def weight(owner: str, number: int) -> None:
    """Let the account hand over N jobs whenever it is its turn; 1 unless it is set."""
    with errors_as_sentences():
        _set_lanes(owner, {"weight": number})


@jobs.command()
@click.argument("owner", metavar=OWNER)
@click.argument("number", metavar="N|none")
def most(owner: str, number: str) -> None:
    """Let at most N images of the account be drawn at a time, of each class; none is JOBS_PER_ACCOUNT again."""
    with errors_as_sentences():
        if number != "none" and not re.fullmatch(r"\d{1,7}", number, re.ASCII):
            raise click.BadParameter("must be a number, or none", param_hint="N")
        _set_lanes(owner, {"most": None if number == "none" else int(number)})


def _set_lanes(owner: str, values: Mapping[str, int | None]) -> None:
    account_id = find_account(owner).account_id
    run_on_database(partial(administration.set_lanes, account_id=account_id, values=values))
    print_rows(_rows(_lanes_of(account_id)), _LANE_WIDTHS, form="table")


def _lanes_of(account_id: str) -> Sequence[LaneSummary]:
    return run_on_database(partial(overview.find_lanes, which=Lane.account_id == account_id, limit=2))


def _show_account(owner: str, form: Form) -> None:
    account_id = find_account(owner).account_id
    print_rows(_rows(_lanes_of(account_id)), _LANE_WIDTHS, form=form)
    unfinished = pages_on_database(partial(overview.find_unfinished, account_id=account_id), lambda row: row.id)
    _print_next(_rows(unfinished), _JOB_WIDTHS, form)


def _show_job(job_id: str, form: Form) -> None:
    images = run_on_database(partial(overview.find_images, job_id=job_id))
    if not images:
        raise ConfigurationError("There is no such job.")
    if form != "json":
        print_facts({name: value for name, value in _row(images[0]).items() if name not in _OF_IMAGE})
    _print_next(_rows(images), _IMAGE_WIDTHS, form)


def _print_next(rows: Iterable[Row], widths: Mapping[str, int], form: Form) -> None:
    """Prints further rows, in a table of their own."""
    if form != "json":
        click.echo()
    print_rows(rows, widths, form=form)


def _rows(found: Iterable[Summary]) -> Iterator[Row]:
    return map(_row, found)


def _row(summary: Summary) -> Row:
    return {name.removeprefix("job_"): value for name, value in asdict(summary).items()}


def _change_each(
    job_ids: Sequence[str], change: Callable[..., Awaitable[Change]], done: str, *, is_confirmed: bool
) -> None:
    """Prints what becomes of each. Ends with 1 if one is refused."""
    refused, would = 0, "are" if is_confirmed else "would be"
    for job_id in job_ids:
        images, refusal, warning = run_on_database(partial(change, job_id=job_id, is_confirmed=is_confirmed))
        if refusal is not None:
            refused += 1
            click.echo(f"{job_id}: not {done}: {refusal}.")
        else:
            click.echo(f"{job_id}: {images} images {would} {done}.{f' {warning}.' if warning else ''}")
    if not is_confirmed and refused < len(job_ids):
        click.echo("Run it with --yes to do so.")
    sys.exit(1 if refused else 0)


def _seconds(expires: str) -> float:
    match = re.fullmatch(r"(\d{1,5})([mh])", expires, re.ASCII)
    seconds = int(match[1]) * {"m": 60, "h": 3600}[match[2]] if match else 0
    if not 1 <= seconds <= EXPIRES_SECONDS_MAX:
        raise click.BadParameter("must look like 30m or 20h, and be 20h at most", param_hint="--expires")
    return seconds
