"""`nanobanana settings`."""

import click

from app.core.settings_docs import env_example


@click.command("settings")
def settings() -> None:
    """Print every setting with its meaning and its default, in the form of a .env file."""
    click.echo(env_example(), nl=False)
