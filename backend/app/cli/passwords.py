"""Passwords that commands set: read from standard input, or made."""

import secrets
import sys
from typing import NamedTuple

import click

from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.features.auth.administration import hash_new_password

_MADE_BYTES = 18


class NewPassword(NamedTuple):
    """A password's hash, and the password itself where it was made: to be printed once it is set."""

    hash: str
    made: str | None

    def print_made(self) -> None:
        """Prints the password if it was made."""
        if self.made is not None:
            click.echo(f"Its password is {self.made}")


def new_password(*, is_made: bool) -> NewPassword:
    """A new random password, or the first line of standard input, which a terminal asks for twice.

    Raises ConfigurationError where none came, and for one that is too short or too long.
    """
    password = secrets.token_urlsafe(_MADE_BYTES) if is_made else _read()
    password_hash = hash_new_password(password, bytes_min=load_settings().password_bytes_min)
    return NewPassword(password_hash, password if is_made else None)


def _read() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline()
    if not line:
        raise ConfigurationError("No password came on standard input: send it as its first line, or use --generate.")
    return line.rstrip("\r\n")
