"""`nanobanana usage`: an operator compares the counters with the recorded generations."""

import sys
from functools import partial

import click

from app.cli.database import run_on_database
from app.cli.errors import errors_as_sentences
from app.generations.reconcile import Difference, find_days, find_differences, find_kept_from


@click.group()
def usage() -> None:
    """Look after what was counted."""


@usage.command()
def reconcile() -> None:
    """Prove that usage equals the ledger: for every key and UTC day, the counter and the delivered generations.

    It reads day by day and holds nothing up. Ends with 1, and says where, if there is a difference.
    """
    with errors_as_sentences():
        days = run_on_database(find_days)
        differences = [found for day in days for found in run_on_database(partial(find_differences, day=day))]
        for found in differences:
            click.echo(f"{found.date} {found.key_id} {found.model}: {_sentence(found)}")
        click.echo(f"{len(days)} days compared, {len(differences)} differences.")
        if kept_from := run_on_database(find_kept_from):
            click.echo(f"Days before {kept_from} are not compared: their generations may have been dropped.")
        sys.exit(1 if differences else 0)


def _sentence(found: Difference) -> str:
    pairs = {
        "images": (found.counted, found.recorded),
        "list amount": (found.counted_list_amount, found.recorded_list_amount),
        "cost": (found.counted_cost, found.recorded_cost),
    }
    return "; ".join(
        f"{name} counted {counted}, recorded {recorded}"
        for name, (counted, recorded) in pairs.items()
        if counted != recorded
    )
