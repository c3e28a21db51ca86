"""What every test stands on: a migrated PostgreSQL, the whole application on a loopback socket, accounts by HTTP."""

import asyncio
import gc
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from io import StringIO
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from app import database_check, migrations
from app.assembly import Externals
from app.core import security
from app.core.bounds import EdgeBounds
from app.core.embedded import embedded_postgres
from app.core.limit_settings import LimitSettings
from app.core.logs import configure_logging
from app.core.settings import Settings
from app.web import connections
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from tests.harness import PATIENCE_SECONDS, Account, fresh_database, running, sign_up
from tests.pool_use import PoolUse, watched_pools
from tests.redis_server import RedisServer, redis_server

SECRET = secrets.token_urlsafe(48)
WIDE_OPEN = "1000000/second"
EVERY_LIMIT = [name for name in LimitSettings.model_fields if "_limit_" in name and not name.endswith("_mode")]

Start = Callable[..., Awaitable[httpx2.AsyncClient]]
SignUp = Callable[..., Awaitable[Account]]


_CHEAP = PasswordHash((Argon2Hasher(memory_cost=8, time_cost=1, parallelism=1),))
_ABOUT_HASHES = {"production_hashes", "hashed"}
_ABOUT_SILENCE = {"silence", "hanging"}
_SERVERS = {"server_url", "redis", "redis_url"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast`: without the tests that need a PostgreSQL or a Redis."""
    parser.addoption("--fast", action="store_true", help="leave out what needs a PostgreSQL or a Redis")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a server, if that was asked for."""
    if config.getoption("fast"):
        items[:] = [each for each in items if not _SERVERS & set(getattr(each, "fixturenames", ()))]


def pytest_sessionstart() -> None:
    """Programs that tests start can be ended by signals which a job in the background of a shell ignores, and would
    pass on to them. What is imported and collected stays, and is no work for the garbage collector.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def logging_as_in_production() -> Iterator[None]:
    """The program's own writer of logs, with its lines thrown away."""
    configure_logging("INFO")
    [handler] = logging.root.handlers[-1:]
    assert isinstance(handler, logging.StreamHandler)
    with Path(os.devnull).open("w") as nowhere:
        handler.setStream(nowhere)
        yield
        logging.root.removeHandler(handler)


@pytest.fixture(autouse=True)
def cheap_hashes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Passwords are hashed in this process at argon2's least cost, except in tests about hashes: most tests hash two,
    and each would take 25 ms of a core.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not _ABOUT_HASHES & set(request.fixturenames):
            patch.setattr(security, "_hasher", _CHEAP)
        yield


@pytest.fixture(autouse=True)
def patient_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """`/ready` waits for the database on a busy machine too, except in tests about one that says nothing."""
    with pytest.MonkeyPatch.context() as patch:
        if not _ABOUT_SILENCE & set(request.fixturenames):
            patch.setattr(database_check, "DATABASE_SECONDS_MAX", PATIENCE_SECONDS)
        yield


@pytest.fixture(scope="session", autouse=True)
def use_of_all_pools() -> Iterator[PoolUse]:
    """The use of the database's pools by all applications of the run."""
    with watched_pools() as use:
        yield use


@pytest.fixture(autouse=True)
def pool_use(use_of_all_pools: PoolUse) -> Iterator[PoolUse]:
    """The same. In no test a task that holds a connection takes a second one, or waits for a body."""
    yield use_of_all_pools
    assert use_of_all_pools.take_faults() == []


@pytest.fixture
def production_hashes() -> None:
    """Passwords cost in this test what they cost in production."""


@pytest.fixture
def log() -> Iterator[StringIO]:
    """Everything that is logged, at DEBUG, from every library."""
    handlers, level = logging.root.handlers[:], logging.root.level
    configure_logging("DEBUG")
    [handler] = logging.root.handlers
    assert isinstance(handler, logging.StreamHandler)
    written = StringIO()
    handler.setStream(written)
    yield written
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server: TEST_DATABASE_URL, or one of our own for the length of the run."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with embedded_postgres(tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_url(server_url: str) -> Iterator[str]:
    """A database that Alembic has migrated. It is copied, and never connected to."""
    with fresh_database(server_url) as url:
        migrations.upgrade(url)
        yield url


@pytest.fixture(scope="session")
def database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A migrated database of this run's own, dropped at the end."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture
def new_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A migrated database in which nothing has been written yet, for one test."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this run's own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """A Redis whose other contents are left alone: TEST_REDIS_URL, or the one of this run."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        return given
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


@pytest.fixture(scope="session")
def settings(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings under which no limit is met by accident."""
    return Settings(
        secret_key=SecretStr(SECRET),
        database_url=SecretStr(database_url),
        data_dir=tmp_path_factory.mktemp("settings"),
        public_url="https://pictures.test",
        work=False,  # no application draws the jobs of another test
        generate_concurrency_per_key=1_000_000,
        hash_queue_max=1000,
        database_pool_size=30,  # a busy machine makes nobody wait for a connection until it is a 503
        **dict.fromkeys(EVERY_LIMIT, WIDE_OPEN),
    )


@pytest.fixture(scope="session")
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the whole application, over a socket, with every middleware on."""
    async with running(settings) as client:
        yield client


@pytest.fixture
def externals() -> dict[str, Any]:
    """What every application that `start` starts takes from the test: fields of Externals, by name."""
    return {}


@pytest.fixture
def time_is_up(monkeypatch: pytest.MonkeyPatch, externals: dict[str, Any]) -> asyncio.Event:
    """While it is set, every request whose response has not begun has waited for it for too long."""
    event, is_late = asyncio.Event(), connections.is_late
    externals["edge_bounds"] = EdgeBounds(sweep_seconds=0.01)

    def is_late_or_up(bounds: EdgeBounds, wait: connections.Wait, **seconds: float) -> bool:
        return (event.is_set() and wait.kind is connections.WaitFor.RESPONSE) or is_late(bounds, wait, **seconds)

    monkeypatch.setattr(connections, "is_late", is_late_or_up)
    return event


@pytest.fixture
async def start(settings: Settings, externals: dict[str, Any]) -> AsyncIterator[Start]:
    """Starts the application again, with other settings, for one test: `client = await start(workers=2)`."""
    async with AsyncExitStack() as stack:

        async def start_with(**changes: object) -> httpx2.AsyncClient:
            changed = Settings(**{**settings.model_dump(), **changes})
            return await stack.enter_async_context(running(changed, Externals(**externals)))

        yield start_with


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own, to look at what is stored."""
    url = make_url(database_url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    yield connection
    await connection.close()


@pytest.fixture
async def account(client: httpx2.AsyncClient) -> Account:
    """A new account, logged in."""
    return await sign_up(client)


@pytest.fixture
async def other_account(client: httpx2.AsyncClient) -> Account:
    """A second account, a stranger to the first."""
    return await sign_up(client)


@pytest.fixture
def backend() -> Path:
    """The folder that holds app/ and alembic.ini."""
    return Path(__file__).parents[1]
