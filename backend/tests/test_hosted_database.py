"""The one database that a hosting service gives: of another owner and locale, to a role without further rights."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from app.cli import main
from app.cli.create_database import main as create_database
from click.testing import CliRunner
from sqlalchemy.engine import URL, make_url
from tests.harness import on_server

PASSWORD = secrets.token_hex(8)
PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


@pytest.fixture
def hosted(server_url: str) -> Iterator[URL]:
    """The URL of such a database for such a role, which may connect to it and nothing else."""
    name = f"nanobanana_hosted_{secrets.token_hex(6)}"
    on_server(server_url, f"create role {name} login password '{PASSWORD}' nocreatedb nocreaterole nosuperuser")
    locale = "locale_provider builtin builtin_locale 'C.UTF-8' lc_collate 'C' lc_ctype 'C'"
    on_server(server_url, f"create database {name} encoding 'UTF8' {locale} template template0")
    yield make_url(server_url).set(database=name, username=name, password=PASSWORD)
    on_server(server_url, f"drop database {name} with (force)")
    on_server(server_url, f"drop role {name}")


def test_what_the_page_grants_is_all_that_the_role_needs(server_url: str, hosted: URL) -> None:
    environment = {"DATABASE_URL": hosted.render_as_string(hide_password=False)}
    refused = CliRunner().invoke(main, ["migrate"], env=environment)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("nanobanana: ")
    [grant] = re.findall(r"```sql\n(grant .*);\n```", PAGE.read_text())
    as_superuser = make_url(server_url).set(database=hosted.database).render_as_string(hide_password=False)
    on_server(as_superuser, grant.replace("to nanobanana", f"to {hosted.username}"))
    assert CliRunner().invoke(create_database, env=environment).output == "The database is there already.\n"
    migrated = CliRunner().invoke(main, ["migrate"], env=environment)
    assert migrated.output == "The database's schema is up to date.\n"
