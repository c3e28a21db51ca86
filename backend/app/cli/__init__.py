"""The command line: `nanobanana serve | work | migrate | check | settings`, and groups of commands about one thing
each.
"""

from collections.abc import Mapping
from importlib import import_module

import click

from app import __version__

COMMANDS: Mapping[str, str] = {
    **{name: name for name in ("serve", "work", "reload", "check", "settings")},
    "migrate": "database",
    **{
        name: name
        for name in (
            "accounts",
            "keys",
            "invitations",
            "limits",
            "models",
            "usage",
            "billing",
            "images",
            "jobs",
            "ledger",
        )
    },
    **dict.fromkeys(("backup", "restore"), "backup"),
}
"""The module of each command. It is imported when the command is called for: `work` needs no web framework."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(import_module(f"app.cli.{COMMANDS[cmd_name]}"), cmd_name)
        return found

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if not error.option_name[1:2].isdecimal():
                raise
            raise click.UsageError("A number must not be negative here.", ctx=error.ctx) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """NanoBanana: an image-generation API platform that anyone can run.

    Settings come from environment variables and from .env; `nanobanana settings` lists every one of them.
    """
