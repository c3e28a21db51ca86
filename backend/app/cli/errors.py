"""How a command fails: one sentence on standard error, and exit status 1."""

import os
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


@contextmanager
def unread_output_dropped() -> Iterator[None]:
    """On leaving, drops what standard output or error cannot take, such as those of a closed terminal.

    Python would fail to write it at its very end, and exit with 120 instead of the program's own status.
    """
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
