"""A PostgreSQL that says nothing: no request waits for it without a deadline, and everything works again by itself."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from app import migrations
from app.core.database_connection import ConnectionOptions, connect
from app.core.database_url import parse_database_url
from app.core.db import create_engine
from app.core.embedded import embedded_postgres
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.conftest import Start
from tests.core.database_ways import Way
from tests.harness import PASSWORD, Account, Key, generate, looks, sign_up, until_ready, until_waited_for
from tests.problems import check_problem
from tests.version_before.history import connected

POOL = 3


@pytest.fixture(autouse=True)
def silence() -> None:
    """Of the database: `/ready` waits for it no longer here than in production."""


class Callers:
    """Somebody who does all that needs the database, the ledger and the pool alike."""

    def __init__(self, account: Account, key: Key) -> None:
        self._account = account
        self.key = key
        self.headers = account.headers

    async def ask(self) -> list[httpx2.Response]:
        """Logs in, reads, writes and generates, more often at once than there are connections."""
        client, account = self._account.client, self._account
        credentials = {"email": account.email, "password": PASSWORD}
        calls: list[Callable[[], Awaitable[httpx2.Response]]] = [
            partial(client.post, "/v1/auth/login", json=credentials),
            partial(client.get, "/v1/auth/me", headers=account.headers),
            partial(client.post, "/v1/keys", json={"name": "a key"}, headers=account.headers),
            partial(generate, client, self.key),
        ]
        return await asyncio.gather(*(call() for call in calls * 2))

    async def are_served(self) -> None:
        assert {answer.status_code for answer in await self.ask()} == {200, 201}

    async def are_refused(self) -> None:
        """Each has an answer. None of them has waited for longer than the client does, which is half a minute."""
        for answer in await self.ask():
            check_problem(answer, 503, answer.json()["code"])
        assert (await self._account.client.get("/ready")).status_code == 503
        assert (await self._account.client.get("/health")).status_code == 200


async def test_a_black_hole_delays_no_request_for_long_and_dead_connections_are_replaced(
    start: Start, new_database_url: str
) -> None:
    way = Way(new_database_url)
    async with way.open(), callers(start, way.url) as (client, asking), connected(new_database_url) as database:
        way.black_hole()
        way.let_through()
        await asking.are_served()  # all connections died while nobody used them
        async with in_the_middle(client, database) as waiting:
            way.black_hole()
            await asking.are_refused()
            check_problem(await waiting, 503, "unavailable")
        way.let_through()
        await asking.are_served()
        await until_ready(client)


async def test_a_frozen_postgresql_delays_no_request_for_long_and_is_used_again_when_it_thaws(
    start: Start, own_server: tuple[str, int]
) -> None:
    url, pid = own_server
    async with callers(start, url) as (client, asking), connected(url) as database:
        async with in_the_middle(client, database) as waiting:
            with frozen(pid):
                await asking.are_refused()
                check_problem(await waiting, 503, "unavailable")
        await asking.are_served()
        await until_ready(client)


async def test_a_commit_whose_wait_for_a_standby_is_cancelled_is_not_acknowledged(
    start: Start, own_server: tuple[str, int]
) -> None:
    url, _ = own_server
    async with callers(start, url) as (client, asking), connected(url) as database:
        async with a_standby_that_is_not_there(database):
            creating = asyncio.create_task(client.post("/v1/keys", json={"name": "a key"}, headers=asking.headers))
            await cancel_its_wait(database)
            check_problem(await creating, 503, "unavailable")
            generating = asyncio.create_task(generate(client, asking.key))
            first = await cancel_its_wait(database)
            await until_it_waits(database, besides=first)  # it is written again, by another connection
            assert not generating.done()
        assert (await generating).status_code == 200
        assert await database.fetchval("select sum(pictures) from usage where key_id = $1", asking.key.id) == 3


@asynccontextmanager
async def a_standby_that_is_not_there(database: asyncpg.Connection) -> AsyncIterator[None]:
    """Whoever commits waits for it until the end of the block."""
    statement = "alter system set synchronous_standby_names = '{}'"
    await database.execute("set synchronous_commit = local")
    for name in ("nobody", ""):
        await database.execute(statement.format(name))
        await database.execute("select pg_reload_conf()")
        if name:
            yield


async def until_it_waits(database: asyncpg.Connection, *, besides: int = 0) -> int:
    """The process of the server that waits for a standby, once there is one besides this."""
    waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep' and pid <> $1"
    for _ in looks():
        if pid := await database.fetchval(waiting, besides):
            return int(pid)
    raise AssertionError("nobody waits")


async def cancel_its_wait(database: asyncpg.Connection) -> int:
    pid = await until_it_waits(database)
    assert await database.fetchval("select pg_cancel_backend($1)", pid)
    return pid


async def test_a_statement_that_is_late_or_cancelled_drops_its_connection(database_url: str) -> None:
    for seconds, cancelled_after, error in ((0.1, None, TimeoutError), (None, 0.1, asyncio.CancelledError)):
        # Without a deadline of ours, the server's own ends the statement, with another error.
        options = ConnectionOptions(settings={"statement_timeout": "20s"}, answer_seconds=seconds)
        connection = await connect(parse_database_url(database_url), options)
        sleeping = asyncio.create_task(connection.execute("select pg_sleep(600)"))
        if cancelled_after:
            await asyncio.sleep(cancelled_after)
            sleeping.cancel()
        with pytest.raises(error):
            await sleeping
        await asyncio.sleep(0)
        assert connection.is_closed()


async def test_a_connection_that_cannot_be_set_up_is_dropped(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, connect_to_one = list[asyncpg.Connection](), asyncpg.connect

    async def connect_noticed(**options: Any) -> asyncpg.Connection:
        made.append(await connect_to_one(**options))
        return made[-1]

    monkeypatch.setattr(asyncpg, "connect", connect_noticed)
    with pytest.raises(asyncpg.UndefinedObjectError):
        await connect(parse_database_url(database_url), ConnectionOptions(settings={"no_such_setting": "1"}))
    assert [each.is_closed() for each in made] == [True]


async def test_a_connection_that_is_used_for_too_long_is_dropped_and_the_next_use_has_another(
    database_url: str,
) -> None:
    engine = create_engine(database_url, pool_size=1, use_seconds_max=0.2)
    with pytest.raises(DBAPIError) as raised:
        async with engine.connect() as connection:
            await connection.execute(text("select pg_sleep(600)"))
    assert raised.value.connection_invalidated  # the deadline of the statement alone comes later, and keeps it
    async with engine.connect() as connection:
        assert await connection.scalar(text("select 1")) == 1
    await engine.dispose()


@asynccontextmanager
async def callers(start: Start, url: str) -> AsyncIterator[tuple[httpx2.AsyncClient, Callers]]:
    """Callers of an application all of whose connections are open."""
    client = await start(database_url=url, database_pool_size=POOL)
    account = await sign_up(client)
    asking = Callers(account, await account.create_key())
    await asking.are_served()
    yield client, asking


@asynccontextmanager
async def in_the_middle(
    client: httpx2.AsyncClient, database: asyncpg.Connection
) -> AsyncIterator["asyncio.Task[httpx2.Response]"]:
    """A request whose statement is under way: it waits for a lock that another transaction holds."""
    account = await sign_up(client)
    async with AsyncExitStack() as stack:
        transaction = database.transaction()
        await transaction.start()
        stack.push_async_callback(transaction.rollback)
        await database.execute("select from accounts where id = $1 for update", account.account_id)
        creating = client.post("/v1/keys", json={"name": "late"}, headers=account.headers)
        waiting = asyncio.create_task(creating)
        await until_waited_for(database)
        yield waiting


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The URL of a migrated PostgreSQL of this module's own, and its process."""
    folder = tmp_path_factory.mktemp("postgres")
    with embedded_postgres(folder) as url:
        migrations.upgrade(url)
        yield url, int((folder / "postgres.state").read_text().split("\n")[0])


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stops a process and its children in the middle of everything, until the block ends."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"\nPPid:\t{pid}\n" in (folder / "status").read_text():
                children.append(int(folder.name))
    for each in (pid, *children):
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in (pid, *children):
            os.kill(each, signal.SIGCONT)
