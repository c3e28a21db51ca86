"""How a command fails: one sentence on standard error, and exit status 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from app.core.embedded import EmbeddedPostgresError
from app.core.settings import ConfigurationError


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Prints a ConfigurationError or an EmbeddedPostgresError as a sentence, without a traceback, and exits with 1."""
    try:
        yield
    except (ConfigurationError, EmbeddedPostgresError) as error:
        click.echo(f"nanobanana: {error}", err=True)
        sys.exit(1)
