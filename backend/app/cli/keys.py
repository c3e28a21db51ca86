"""`nanobanana keys`: an operator finds and revokes keys, whoever owns them."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import click
from sqlalchemy import ColumnElement

from app.cli.database import pages_on_database, run_on_database
from app.cli.errors import errors_as_sentences
from app.cli.output import Form, as_json, print_facts, print_rows
from app.core.settings import ConfigurationError
from app.features.keys import administration
from app.features.keys.administration import KeySummary

_WIDTHS = {"id": 24, "prefix": 16, "environment": 11, "created_at": 27, "last_used_at": 27, "revoked_at": 27, "name": 4}
_from_stdin = click.option("--stdin", "is_sent", is_flag=True, help="Read the whole key from standard input.")


@click.group()
def keys() -> None:
    """Find and revoke API keys."""


@keys.command("list")
@click.argument("owner", metavar="EMAIL|ACCOUNT_ID|USER_ID")
@as_json
def list_keys(owner: str, form: Form) -> None:
    """Print all keys of an account, revoked ones too."""
    with errors_as_sentences():
        print_rows(map(asdict, _matching(administration.keys_of(owner))), _WIDTHS, form=form)


@keys.command()
@click.argument("name", metavar="[KEY_ID|PREFIX]", required=False)
@_from_stdin
def find(name: str | None, *, is_sent: bool) -> None:
    """Print the keys with this id or prefix, or the one that is sent on standard input, and whose they are."""
    with errors_as_sentences():
        found = _matching(_meant(name, is_sent=is_sent))
        first = next(found, None)
        if first is None:
            raise _no_key()
        print_facts(asdict(first))
        for each in found:
            click.echo()
            print_facts(asdict(each))


@keys.command()
@click.argument("key_id", required=False)
@_from_stdin
@click.option("--yes", is_flag=True, help="Revoke it; without it, the key is printed.")
def revoke(key_id: str | None, *, is_sent: bool, yes: bool) -> None:
    """Revoke the key with this id, or the one that is sent on standard input.

    From then on every call with it is refused, for good. Asynchronous generations that wait under it are cancelled with
    it; those that are being drawn end, and count.
    """
    with errors_as_sentences():
        found = next(_matching(_meant(key_id, is_sent=is_sent, is_exact=True)), None)
        if found is None:
            raise _no_key()
        if not yes:
            print_facts(asdict(found))
            click.echo("Run it with --yes to revoke the key. That cannot be undone.")
        elif run_on_database(partial(administration.revoke, key=found)):
            click.echo(f"The key {found.id} is revoked.")
        else:
            raise ConfigurationError(f"The key {found.id} was revoked already.")


def _meant(name: str | None, *, is_sent: bool, is_exact: bool = False) -> ColumnElement[bool]:
    if is_sent == (name is not None):
        raise click.UsageError("Name a key, or send it on standard input with --stdin.")
    if name is None:
        return administration.key_itself(sys.stdin.readline().strip())
    return administration.key_named(name, is_exact=is_exact)


def _matching(which: ColumnElement[bool]) -> Iterator[KeySummary]:
    find_page = partial(administration.find_page, which=which)
    return pages_on_database(find_page, lambda row: row.id)


def _no_key() -> ConfigurationError:
    return ConfigurationError("There is no such key.")
