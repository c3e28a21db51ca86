"""A database in which no server takes expired grants back but one that a test starts, and accounts in it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest
from app.core.db import SessionMaker, create_engine
from app.core.security import new_id
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.harness import fresh_database

SetBalance = Callable[..., Awaitable[None]]


@pytest.fixture(scope="session")
def own_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database for these tests alone."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture
async def database(own_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own to it."""
    url = make_url(own_database_url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    yield connection
    await connection.close()


@pytest.fixture
async def sessions(own_database_url: str) -> AsyncIterator[SessionMaker]:
    """Transactions as the application opens them, ten at a time."""
    engine = create_engine(own_database_url, pool_size=10)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


@pytest.fixture
async def account_id(database: asyncpg.Connection) -> str:
    """A new account, without money."""
    return await new_account(database)


async def new_account(database: asyncpg.Connection) -> str:
    """The id of another one."""
    account_id = new_id("acc")
    await database.execute("insert into accounts (id) values ($1)", account_id)
    return account_id


@pytest.fixture
def set_balance(database: asyncpg.Connection, account_id: str) -> SetBalance:
    """Writes what the ledger would: `await set_balance(held=15)`."""

    async def write(*, charged: int = 0, held: int = 0) -> None:
        row = "update balances set charged = $2, held = $3 where account_id = $1"
        await database.execute(row, account_id, charged, held)

    return write
