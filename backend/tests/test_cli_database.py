"""Creating a database, and migrating one: each outcome is one sentence."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import pytest
from app import migrations
from app.cli import main
from app.cli.create_database import main as create_database
from app.core.db import create_engine
from app.core.settings import Settings
from click.testing import CliRunner, Result
from sqlalchemy.engine import URL, make_url
from tests.harness import free_port, fresh_database, on_server

PASSWORD = secrets.token_hex(8)


@pytest.fixture
def role(server_url: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"nanobanana_role_{secrets.token_hex(6)}"
    on_server(server_url, f"create role {name} login password '{PASSWORD}'")
    yield name
    on_server(server_url, f"drop owned by {name}")
    on_server(server_url, f"drop role {name}")


@pytest.fixture
def absent(server_url: str) -> Iterator[URL]:
    """The URL of a database that is not there, and is dropped if it was made."""
    url = make_url(server_url).set(database=f'nanobanana_new_"{secrets.token_hex(6)}')
    yield url
    quoted = (url.database or "").replace('"', '""')
    on_server(server_url, f'drop database if exists "{quoted}" with (force)')


def run(command: str, url: str | URL) -> Result:
    """What the command ends with on this DATABASE_URL, and prints: one line, without the password."""
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    started, words = (create_database, []) if command == "create" else (main, [command])
    done = CliRunner().invoke(started, words, env={"DATABASE_URL": text})
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.output.count("\n") == 1
    assert PASSWORD not in done.output
    return done


def test_a_database_that_is_not_there_is_made_with_utf8_and_migrated(absent: URL) -> None:
    assert run("create", absent).output == "Created the database.\n"
    assert run("create", absent).output == "The database is there already.\n"
    encoding = "do $$ begin assert current_setting('server_encoding') = 'UTF8'; end $$"
    on_server(absent.render_as_string(hide_password=False), encoding)
    assert run("migrate", absent).output == "The database's schema is up to date.\n"


def test_a_role_that_may_not_create_databases_needs_none_of_that_where_the_database_is_there(
    server_url: str, role: str, absent: URL
) -> None:
    own = absent.set(username=role, password=PASSWORD)
    refused = run("create", own)
    assert refused.exit_code == 1
    said, _, statement = refused.stderr.strip().rstrip(";").partition(" in psql: ")
    assert said == "nanobanana: The role of DATABASE_URL may not create databases. Have a superuser run"
    on_server(server_url, statement)
    assert run("create", own).output == "The database is there already.\n"
    assert run("migrate", own).exit_code == 0


def test_an_older_program_leaves_a_newer_schema_alone(new_database_url: str) -> None:
    on_server(new_database_url, "update alembic_version set version_num = 'from_the_future'")
    done = run("migrate", new_database_url)
    assert (done.exit_code, done.output) == (0, "The database's schema is newer than this program; nothing to do.\n")


def test_an_older_program_starts_on_a_newer_schema_of_its_own_postgresql(
    new_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = list[Settings]()
    # By its name: `app.cli.serve` is the command.
    monkeypatch.setattr(
        import_module("app.cli.serve"), "embedded_postgres", lambda *_, **__: nullcontext(new_database_url)
    )
    monkeypatch.setattr("app.server.run", lambda settings, *_, **__: served.append(settings))
    on_server(new_database_url, "update alembic_version set version_num = 'from_the_future'")
    done = CliRunner().invoke(main, ["serve"], env={"DATA_DIR": str(tmp_path), "PORT": str(free_port())})
    assert (done.exit_code, len(served)) == (0, 1)


def test_the_schema_of_another_program_is_left_alone(server_url: str) -> None:
    with fresh_database(server_url) as url:
        on_server(url, "create table alembic_version (version_num varchar(32) primary key)")
        on_server(url, "insert into alembic_version values ('of_another')")
        done = run("migrate", url)
    sentence = "nanobanana: The database has the schema of another program. Name a database of its own.\n"
    assert (done.exit_code, done.stderr) == (1, sentence)


def test_migrating_from_a_shell_goes_by_the_direct_url(monkeypatch: pytest.MonkeyPatch, server_url: str) -> None:
    with fresh_database(server_url) as url:
        monkeypatch.setenv("DATABASE_DIRECT_URL", url)
        assert run("migrate", "postgresql://nobody@127.0.0.1:1/nowhere").exit_code == 0
        monkeypatch.delenv("DATABASE_DIRECT_URL")
        assert asyncio.run(_is_current(url))


async def _is_current(url: str) -> bool:
    engine = create_engine(url, pool_size=1)
    async with engine.connect() as connection:
        state = await migrations.schema_state(connection)
    await engine.dispose()
    return state == "current"
