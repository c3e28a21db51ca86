"""What `check` and `serve` say of each situation of the database and of Redis stands in docs/operations.md."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from app.cli import main
from click.testing import CliRunner
from sqlalchemy.engine import make_url
from tests.core.database_ways import refusing
from tests.harness import free_port, fresh_database, on_server
from tests.standins.postgres import silent_host, standby

Value = TypeVar("Value")
Place = AbstractContextManager[str]  # a URL for as long as the situation lasts

NOWHERE = "postgresql://u:hunter2@127.0.0.1:1/n?sslmode=disable"


@contextmanager
def in_background(opened: AbstractAsyncContextManager[Value]) -> Iterator[Value]:
    """What it yields, on an event loop in a thread of its own: the commands run in this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        value = asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result()
        yield value
        asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(_end_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_others() -> None:
    """Ends the tasks of the loop, and lets their connections close."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)


@contextmanager
def at(url: str) -> Iterator[str]:
    yield url


@contextmanager
def at_port(host: AbstractAsyncContextManager[int], url: str) -> Iterator[str]:
    """The URL with the port of the host in it."""
    with in_background(host) as port:
        yield url.format(port=port)


@contextmanager
def database(server_url: str, *statements: str, copy_of: str | None = None) -> Iterator[str]:
    """A database of its own, after these statements about it."""
    with fresh_database(server_url, copy_of=copy_of) as url:
        for statement in statements:
            on_server(url, statement.format(name=make_url(url).database))
        yield url


@contextmanager
def encoded(server_url: str, encoding: str) -> Iterator[str]:
    name = f"nanobanana_test_{encoding.lower()}_{threading.get_native_id()}"
    layout = f"encoding '{encoding}' locale 'C' template template0"
    on_server(server_url, f"create database {name} {layout}")
    yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    on_server(server_url, f"drop database {name} with (force)")


def databases(server: str, migrated: str) -> Mapping[str, Callable[[], Place]]:
    """A place for each situation of the database in the documentation."""
    absent = make_url(server).set(database="hunter2").render_as_string(hide_password=False)
    foreign = ("create table alembic_version (version_num text)", "insert into alembic_version values ('another')")
    newer = "update alembic_version set version_num = 'from_the_future'"
    read_only = "alter database {name} set default_transaction_read_only = on"
    here = "postgresql://u:hunter2@127.0.0.1:{port}/n?sslmode=disable"
    return {
        "nobody listens": lambda: at(NOWHERE),
        "a folder without a socket": lambda: at("postgresql://u:hunter2@/n?host=/nowhere"),
        "it takes connections and says nothing": lambda: at_port(silent_host(), f"{here}&connect_timeout=1"),
        "another user or password": lambda: in_background(refusing("28P01")),
        "no such database": lambda: at(absent),
        "all connections are taken": lambda: in_background(refusing("53300")),
        "it is starting or stopping": lambda: in_background(refusing("57P03")),
        "`sslmode=require`, and no TLS there": lambda: at_port(_without_tls(), here.replace("disable", "require")),
        "several hosts, and no primary": lambda: at_port(
            standby(), "postgresql://u:hunter2@127.0.0.1:{port},127.0.0.1:{port}/n?sslmode=disable"
        ),
        "a standby, or read-only": lambda: database(server, read_only, copy_of=migrated),
        "encoding LATIN1": lambda: encoded(server, "LATIN1"),
        "encoding SQL_ASCII": lambda: encoded(server, "SQL_ASCII"),
        "not migrated": lambda: database(server),
        "the schema of another program": lambda: database(server, *foreign),
        "a newer schema": lambda: database(server, newer, copy_of=migrated),
    }


def redises(plain: str) -> Mapping[str, Callable[[], Place]]:
    """A place for each situation of Redis in the documentation."""
    return {
        "Redis: nobody listens": lambda: at("redis://u:hunter2@127.0.0.1:1"),
        "Redis: it says nothing": lambda: at_port(silent_host(), "redis://127.0.0.1:{port}"),
        "Redis: another password": lambda: at(plain.replace("://", "://u:hunter2@")),
        "Redis Cluster: nobody listens": lambda: at("redis+cluster://127.0.0.1:1"),
        "Redis Cluster: a Redis that is none": lambda: at(plain.replace("redis://", "redis+cluster://")),
        "an option that the client does not know": lambda: at("redis://127.0.0.1:1?hunter2=hunter2"),
    }


def run(command: str, folder: Path, **settings: str) -> str:
    """What the command prints with these settings."""
    environment = {"DATA_DIR": str(folder), "PORT": str(free_port()), **settings}
    done = CliRunner().invoke(main, [command], env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert "hunter2" not in done.output
    return done.output


def test_of_each_situation_of_a_database_the_documented_sentence_is_said(
    tmp_path: Path, server_url: str, migrated_url: str, documented: Mapping[str, str]
) -> None:
    for situation, place in databases(server_url, migrated_url).items():
        sentence = documented[situation]
        with place() as url:
            assert f"database: {sentence}\n" in run("check", tmp_path, DATABASE_URL=url), situation
            if situation != "a newer schema":  # which is served
                assert run("serve", tmp_path, DATABASE_URL=url) == f"nanobanana: {sentence}\n", situation


def test_of_each_situation_of_redis_the_documented_sentence_is_said(
    tmp_path: Path, redis_url: str, documented: Mapping[str, str]
) -> None:
    for situation, place in redises(redis_url).items():
        sentence = documented[situation]
        with place() as url:
            settings = {"DATABASE_URL": NOWHERE, "REDIS_URL": url}
            assert f"redis: {sentence}\n" in run("check", tmp_path, **settings), situation
            assert sentence in run("serve", tmp_path, **settings), situation


@pytest.fixture
def documented(backend: Path) -> Mapping[str, str]:
    """The sentence of each situation, from the table in docs/operations.md."""
    lines = (backend.parent / "docs" / "operations.md").read_text().splitlines()
    begin = lines.index("| situation | `check` and `serve` say |") + 2
    rows = [line.strip("| ").split(" | ") for line in lines[begin:] if line.startswith("|")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _without_tls() -> AbstractAsyncContextManager[int]:
    return silent_host(answer=b"N")
