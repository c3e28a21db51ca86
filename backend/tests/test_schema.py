"""The migrations and the models are one schema, whichever way it is made."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from app import migrations
from app.models import Base
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.harness import fresh_database
from tests.schema_dump import dump


def drop_a_check(connection: Connection) -> None:
    connection.execute(text("alter table usage drop constraint usage_pictures_check"))


def on_connection(database_url: str, action: Callable[[Connection], None]) -> None:
    async def run() -> None:
        engine = create_async_engine(database_url)
        async with engine.begin() as connection:
            await connection.run_sync(action)
        await engine.dispose()

    asyncio.run(run())


def alembic(backend: Path, database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("alembic"), *arguments],
        cwd=backend,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_migrated_schema_equals_the_models(server_url: str) -> None:
    with fresh_database(server_url) as migrated, fresh_database(server_url) as made:
        migrations.upgrade(migrated)
        on_connection(made, Base.metadata.create_all)
        assert dump(migrated) == dump(made)


def test_a_difference_that_alembic_does_not_see_is_seen(server_url: str) -> None:
    with fresh_database(server_url) as migrated, fresh_database(server_url) as made:
        migrations.upgrade(migrated)
        on_connection(made, Base.metadata.create_all)
        on_connection(made, drop_a_check)
        assert dump(migrated) != dump(made)


def test_alembic_goes_up_down_and_up_again_from_its_folder(server_url: str, backend: Path) -> None:
    with fresh_database(server_url) as url:
        empty = dump(url)
        for arguments in (("upgrade", "head"), ("downgrade", "base")):
            done = alembic(backend, url, *arguments)
            assert done.returncode == 0, done.stderr
        assert dump(url) == empty
        assert alembic(backend, url, "upgrade", "head").returncode == 0
        assert "CREATE TABLE public.users" in dump(url)


def test_alembic_reads_and_writes_the_checkout_that_it_is_called_in_whatever_its_path(
    server_url: str, backend: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "100% new" / "backend"
    shutil.copytree(backend / "app", copy / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(backend / "alembic.ini", copy)
    versions = copy / "app" / "migrations" / "versions"
    before = set(versions.iterdir())
    with fresh_database(server_url) as url:
        assert str(versions) in alembic(copy, url, "heads", "--verbose").stdout
        for arguments in (("upgrade", "head"), ("revision", "-m", "Add what to what"), ("upgrade", "head")):
            done = alembic(copy, url, *arguments)
            assert done.returncode == 0, done.stderr
        [added] = set(versions.glob("*.py")) - before
        assert re.fullmatch(r"\d{4}_\d{2}_\d{2}_add_what_to_what\.py", added.name)
        assert alembic(copy, url, "current").stdout.endswith(" (head)\n")
        assert alembic(copy, url, "downgrade", "base").returncode == 0


def test_two_migrations_at_once_are_one(server_url: str, backend: Path) -> None:
    with fresh_database(server_url) as url:
        command = [sys.executable, "-m", "alembic", "upgrade", "head"]
        environment = {**os.environ, "DATABASE_URL": url}
        both = [subprocess.Popen(command, cwd=backend, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
        for process in both:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("revision", list(ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()))
def test_every_migration_is_a_dated_sentence(revision: object) -> None:
    path = Path(getattr(revision, "path", ""))
    assert path.name[:10].replace("_", "").isdigit(), "names begin with the date"
    assert str(getattr(revision, "doc", "")).count(" ") >= 2, "its docstring says in words what it does"
