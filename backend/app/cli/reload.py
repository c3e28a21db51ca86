"""`nanobanana reload`: a running server takes on changed settings, without a restart."""

import os
import time
from pathlib import Path

import click

from app.cli.errors import errors_as_sentences
from app.core.running_servers import RunningServer, read_again, running_servers
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.rolling import RELOAD

_LOOK_SECONDS = 0.1


@click.command()
def reload() -> None:
    """Have the server that runs on DATA_DIR read .env, the files that it names and MODELS_FILE again.

    Returns when every worker runs the new settings and has answered what it was asked under the old ones. Settings that
    cannot be used change nothing, and end this command with the sentence that a start would end with.
    """
    with errors_as_sentences():
        data_dir = load_settings().data_dir
        servers = running_servers(data_dir)
        if not servers:
            raise ConfigurationError(f"No server of this machine runs on {data_dir}.")
        for server in servers:
            click.echo(f"{server.address}: {_reload(server, data_dir)}")


def _reload(server: RunningServer, data_dir: Path) -> str:
    """How the reload ended, as sentences. Raises ConfigurationError where it was refused."""
    try:
        os.kill(server.pid, RELOAD)
    except PermissionError:
        raise ConfigurationError(f"The server at {server.address} belongs to another user.") from None
    while now := read_again(server, data_dir):
        if now.reloads_ended > server.reloads_begun:
            if now.is_refused:
                raise ConfigurationError(now.sentence)
            return now.sentence
        time.sleep(_LOOK_SECONDS)
    raise ConfigurationError(f"The server at {server.address} has ended meanwhile.")
