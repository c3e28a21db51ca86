"""Several hosts in one URL, and a writer that outlives whatever connecting to them raises."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from app.core.database_connection import ConnectionOptions, SettingsNotKeptError, connect
from app.core.database_url import parse_database_url
from app.core.db import connect_for_writing, create_engine
from app.generations.ledger import Ledger
from app.generations.ledger.queue import Recorded
from app.generations.ledger.writer import Writer
from asyncpg.exceptions import InternalClientError, TargetServerAttributeNotMatched
from sqlalchemy import text
from sqlalchemy.engine import make_url
from tests.conftest import Start
from tests.core.database_ways import Way, refusing
from tests.features.usage.recorded import new_record
from tests.harness import Account, Key, free_port, generate, on_server, until_ready
from tests.problems import check_problem
from tests.standins.postgres import silent_host, standby

PRETEND_STANDBYS = """
    create schema pretended;
    create table pretended.standbys (pid int);
    create function pretended.pg_is_in_recovery() returns bool language sql as
      'select exists (select from pretended.standbys where pid = pg_backend_pid())';
    do $$ begin
      execute format('alter database %I set search_path = pretended, pg_catalog, public', current_database());
    end $$
"""


def several(way: Way, ports: Sequence[int]) -> str:
    """The URL of the way with these ports before its own."""
    url = make_url(way.url)
    hosts = ",".join(f"127.0.0.1:{port}" for port in (*ports, url.port or 0))
    return f"postgresql://{url.username}:{url.password}@{hosts}/{url.database}?sslmode=disable"


@pytest.mark.parametrize("attributes", ["", "&target_session_attrs=read-write", "&target_session_attrs=primary"])
async def test_the_primary_is_used_whatever_the_hosts_before_it_do(
    start: Start, account: Account, key: Key, database_url: str, attributes: str
) -> None:
    way = Way(database_url)
    async with AsyncExitStack() as stack:
        silent, second = [await stack.enter_async_context(host()) for host in (silent_host, standby)]
        refused = make_url(await stack.enter_async_context(refusing("28P01"))).port or 0
        await stack.enter_async_context(way.open())
        client = await start(database_url=several(way, [silent, second, refused, free_port()]) + attributes)
        assert (await client.get("/v1/auth/me", headers=account.headers)).status_code == 200
        assert (await generate(client, key)).status_code == 200
        await until_ready(client)


async def test_without_a_primary_requests_are_refused_until_there_is_one(
    start: Start, account: Account, key: Key, database_url: str
) -> None:
    way = Way(database_url)
    async with standby() as port:
        client = await start(database_url=several(way, [port]), record_deadline_seconds=1)
        for _ in range(2):
            answers = [await client.get("/v1/auth/me", headers=account.headers), await generate(client, key)]
            for answer in answers:
                check_problem(answer, 503, "unavailable")
            async with way.open():
                assert (await client.get("/v1/auth/me", headers=account.headers)).status_code == 200
                assert (await generate(client, key)).status_code == 200


async def test_of_two_hosts_that_answer_at_once_one_is_used_and_the_other_connection_is_dropped(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, both = list[asyncpg.Connection](), asyncio.Event()
    connect_to_one = asyncpg.connect

    async def connect_together(**options: Any) -> asyncpg.Connection:
        connection: asyncpg.Connection = await connect_to_one(**options)
        made.append(connection)
        if len(made) > 1:
            both.set()
        await both.wait()
        return connection

    monkeypatch.setattr(asyncpg, "connect", connect_together)
    first, second = Way(database_url), Way(database_url)
    async with first.open(), second.open():
        port = make_url(first.url).port or 0
        used = await connect(
            parse_database_url(several(second, [port])), ConnectionOptions(settings={}, is_shared=True)
        )
        await asyncio.sleep(0)  # the other one is dropped by a callback
        assert [each for each in made if not each.is_closed()] == [used]
        used.terminate()


async def test_the_kernel_probes_connections_over_tcp(database_url: str) -> None:
    way = Way(database_url)
    async with way.open():
        connection = await connect_for_writing(f"{way.url}&keepalives_idle=7&tcp_user_timeout=4000")
        options = (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        )
        assert [vars(connection)["_socket"].getsockopt(*option) for option in options] == [1, 7, 4000]
        await connection.close()


@pytest.mark.parametrize(
    "error",
    [
        TargetServerAttributeNotMatched("no primary"),
        InternalClientError("cannot switch to state 12"),
        asyncpg.InterfaceError("closed"),
        asyncpg.CannotConnectNowError("starting"),
        SettingsNotKeptError(),
        ssl.SSLError("untrusted"),
        ConnectionResetError(),
        TimeoutError(),
        KeyError("getpwuid"),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_connecting_raises_the_writer_lives_on_and_writes(
    database_url: str, key: Key, error: BaseException
) -> None:
    raised = [error] * 3

    async def connect() -> asyncpg.Connection:
        if raised:
            raise raised.pop()
        return await connect_for_writing(database_url)

    ledger = Ledger(Writer(connect), queue_max=10, deadline_seconds=60)
    ledger.open()  # a sweep is due at once, and connects too
    assert isinstance(await ledger.record(new_record(key)), Recorded)
    assert (raised, ledger.is_alive) == ([], True)
    await ledger.close()


async def test_what_a_standby_refuses_certainly_was_not_recorded_and_is_by_the_next_connection(
    database_url: str, key: Key
) -> None:
    read_only = [True]

    async def connect() -> asyncpg.Connection:
        connection = await connect_for_writing(database_url)
        await connection.execute(f"set default_transaction_read_only = {bool(read_only)}")
        return connection

    writer, record = Writer(connect), new_record(key)
    assert await writer.write([record]) == [record]
    assert not record.was_sent  # else it would end as OutcomeUnknown where no primary comes in time
    read_only.clear()
    assert await writer.write([record]) == []
    assert isinstance(record.outcome.result(), Recorded)
    writer.close()


async def test_a_connection_of_the_pool_that_leads_to_a_standby_now_is_replaced(new_database_url: str) -> None:
    engine = create_engine(new_database_url, pool_size=1)
    await asyncio.to_thread(on_server, new_database_url, PRETEND_STANDBYS)
    pids = []
    for is_demoted in (False, True, True, False):
        async with engine.begin() as connection:
            pids.append(await connection.scalar(text("select pg_backend_pid()")))
            if is_demoted:
                await connection.execute(text("insert into pretended.standbys values (pg_backend_pid())"))
    await engine.dispose()
    assert len(pids) == len({*pids}) + 1
    assert pids[0] == pids[1]
