"""`nanobanana accounts`: an operator makes, looks at, changes, stops and deletes accounts."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial

import click

from app.assembly import open_services
from app.catalogue.prices import read_amount
from app.cli.database import pages_on_database, run_on_database, settings_of_command
from app.cli.errors import errors_as_sentences
from app.cli.output import Form, as_json, print_facts, print_rows
from app.cli.passwords import new_password
from app.core.errors import ApiError
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings
from app.features.auth import administration
from app.features.auth.administration import AccountSummary
from app.features.auth.deletion import delete_account
from app.features.auth.service import EmailAlreadyRegistered, create_user
from app.features.keys.limits import find_limits
from app.features.usage.report import find_use
from app.generations.erase import erase

_WIDTHS = {"email": 30, "account_id": 24, "created_at": 27, "is_active": 9, "keys": 4, "last_used_at": 27}
OWNER = "EMAIL|ACCOUNT_ID|USER_ID"


@click.group()
def accounts() -> None:
    """Make, look at, change, stop and delete accounts."""


@accounts.command()
@click.argument("email")
@click.option("--generate", is_flag=True, help="Make a password and print it, instead of reading one.")
@click.option("--operator", is_flag=True, help="Mark the user as an operator.")
def create(email: str, *, generate: bool, operator: bool) -> None:
    """Make an account for EMAIL, whatever REGISTRATION says; its password is the first line of standard input."""
    with errors_as_sentences():
        canonical = administration.read_email(email)
        password = new_password(is_made=generate)
        trial = read_amount(load_settings().trial_credit)
        new = partial(create_user, email=canonical, password_hash=password.hash, is_operator=operator)
        try:
            user = run_on_database(partial(new, trial_credit=trial))
        except EmailAlreadyRegistered:
            raise ConfigurationError("There is an account with that email already.") from None
        click.echo(f"Made the account {user.account_id} of {user.email}.")
        password.print_made()


@accounts.command("list")
@click.argument("part", default="")
@as_json
def list_accounts(part: str, form: Form) -> None:
    """Print the accounts whose email has PART in it, or all, in order of email."""
    find_page = partial(administration.find_page, part=part)
    with errors_as_sentences():
        print_rows(map(asdict, pages_on_database(find_page, lambda row: row.email or "")), _WIDTHS, form=form)


@accounts.command()
@click.argument("owner", metavar=OWNER)
def show(owner: str) -> None:
    """Print one account: its limits, its keys, what it used today and this month, and when it was last there."""
    with errors_as_sentences():
        found = find_account(owner)
        print_facts(asdict(found))
        print_facts(run_on_database(partial(find_use, account_id=found.account_id)))
        for own in run_on_database(partial(find_limits, owner=found.account_id, settings=load_settings())):
            print_facts({f"limits of {own.owner}": str(own)})


@accounts.command()
@click.argument("owner", metavar=OWNER)
def disable(owner: str) -> None:
    """Stop the account: its login tokens, its sessions and all its keys are refused at once, and its jobs cancelled."""
    _change(owner, partial(administration.set_account_active, active=False), "The account is disabled.")


@accounts.command()
@click.argument("owner", metavar=OWNER)
def enable(owner: str) -> None:
    """Let the account work again, with the keys that it had."""
    _change(owner, partial(administration.set_account_active, active=True), "The account is enabled.")


@accounts.command("set-password")
@click.argument("owner", metavar=OWNER)
@click.option("--generate", is_flag=True, help="Make a password and print it, instead of reading one.")
def set_new_password(owner: str, *, generate: bool) -> None:
    """Replace the password by the first line of standard input, and end every login; API keys go on working."""
    with errors_as_sentences():
        password = new_password(is_made=generate)
    _change(owner, partial(administration.set_password, password_hash=password.hash), "The password is changed.")
    password.print_made()


@accounts.command()
@click.argument("owner", metavar=OWNER)
@click.option("--off", is_flag=True, help="Take the mark away.")
def operator(owner: str, *, off: bool) -> None:
    """Mark the user as an operator. It allows nothing yet; `show` and `list --json` print it."""
    done = "The user is no operator." if off else "The user is an operator."
    _change(owner, partial(administration.set_operator, is_operator=not off), done)


@accounts.command()
@click.argument("owner", metavar=OWNER)
@click.option("--yes", is_flag=True, help="Delete it; without it, what would be deleted is printed.")
def delete(owner: str, *, yes: bool) -> None:
    """Delete the account for good, and leave numbers without names.

    Its email, password, sessions, keys, prompts and images are erased while the service runs, and what it used stays.
    If that ends halfway, a running server goes on with it, or the same command with the account's id.
    """
    with errors_as_sentences():
        found = find_account(owner)
        if not yes:
            print_facts({"email": found.email, "account_id": found.account_id, "keys": found.keys})
            click.echo("Run it with --yes to delete the account. That cannot be undone.")
            return
        under_way = _delete(found.account_id)
        click.echo("Its prompts and images are erased.")
        if under_way:
            click.echo(f"Still being drawn, to be erased by a server when they have ended: {under_way}.")


def _change(owner: str, change: Callable[..., Awaitable[bool]], done: str) -> None:
    with errors_as_sentences():
        if not run_on_database(partial(change, owner=owner)):
            raise _no_account(owner)
        click.echo(done)


def find_account(owner: str) -> AccountSummary:
    """The account that is meant. Raises ConfigurationError where there is none."""
    found = run_on_database(partial(administration.find_one, owner=owner))
    if found is None:
        raise _no_account(owner)
    return found


def _no_account(owner: str) -> ConfigurationError:
    return ConfigurationError(f"There is no account with that {'email' if '@' in owner else 'id'}.")


def _delete(account_id: str) -> int:
    """Deletes the account, or goes on with that; how many generations are left to the servers. Nothing is done where
    the store cannot be opened.
    """
    settings = settings_of_command()
    try:
        return asyncio.run(_delete_on(settings, account_id))
    except ApiError as error:
        raise ConfigurationError(
            f"Not all is erased: {error.sentence}. A running server goes on with it, or this command with {account_id}."
        ) from None


async def _delete_on(settings: Settings, account_id: str) -> int:
    async with open_services(settings) as services:
        async with services.sessions.begin() as session:
            await delete_account(session, owner=account_id)
        click.echo(f"Deleted the account {account_id}.")
        return await erase(services.generations, account_id=account_id)
