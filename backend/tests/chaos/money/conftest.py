"""What the fault tests of money share: servers that charge, on a database whose books are kept."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import PROGRAM
from tests.chaos.jobs.opened import opened_yard
from tests.chaos.jobs.yard import Yard
from tests.chaos.money.books import keep_books
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import times
from tests.redis_server import RedisServer

SERVERS = times(short=2, long=4)
SETTINGS = {"BILLING": "on", "GENERATION_DEADLINE_SECONDS": "2", "DATABASE_POOL_SIZE": "5"}
"""With a lease that ends soon, so that what a killed process held is soon free, and no more connections than the
database has.
"""
OpenYard = Callable[..., AbstractAsyncContextManager[Yard]]


@pytest.fixture(scope="session")
def open_yard(
    cluster: Cluster, proxy: Proxy, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> OpenYard:
    """Opens a yard on a new database, whose server is this program: `async with open_yard(program=PROGRAM) as yard`."""

    @asynccontextmanager
    async def begin(*, program: Sequence[str] = PROGRAM) -> AsyncIterator[Yard]:
        proxy.open()
        own = await cluster.with_new_database()
        database = await own.connect()
        await keep_books(database)
        await database.close()
        url, folder = own.url_through(proxy.port), tmp_path_factory.mktemp("money")
        opened = opened_yard(
            cluster,
            own,
            url=url,
            proxy=proxy,
            redis=own_redis,
            folder=folder,
            program=program,
            workers=SERVERS,
            more=SETTINGS,
        )
        async with opened as yard:
            yield yard

    return begin


@pytest.fixture(scope="session")
async def yard(open_yard: OpenYard) -> AsyncIterator[Yard]:
    """The one of the program without a defect."""
    async with open_yard() as opened:
        yield opened
