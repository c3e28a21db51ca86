"""What the fault tests of jobs share: a database of their own, a provider that counts, a bucket, and a server that
accepts and does not work.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.chaos.cluster import Cluster
from tests.chaos.jobs.hands import PROGRAM, Hands, hands
from tests.chaos.jobs.opened import opened_yard
from tests.chaos.jobs.yard import Yard, execute
from tests.chaos.proxy import Proxy
from tests.harness import Account, sign_up
from tests.redis_server import RedisServer

_FUND = "update balances set credit = 1000000000000, allowance = 500000 where account_id = $1"
Employ = Callable[..., AbstractAsyncContextManager[Hands]]


@pytest.fixture(scope="session")
async def yard(
    cluster: Cluster, proxy: Proxy, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Yard]:
    """Everything that jobs meet, but for workers."""
    own = await cluster.with_new_database()
    url, folder = own.url_through(proxy.port), tmp_path_factory.mktemp("jobs")
    async with opened_yard(cluster, own, url=url, proxy=proxy, redis=own_redis, folder=folder) as opened:
        yield opened


@pytest.fixture
async def account(yard: Yard) -> Account:
    """A new one, with everything in order, whose allowance ends soon and whose credit lasts."""
    yard.proxy.open()
    yard.bucket.recover()
    account = await sign_up(yard.client)
    await execute(yard.own, _FUND, account.account_id)
    return account


@pytest.fixture
def employ(yard: Yard, tmp_path: Path) -> Employ:
    """Starts workers: `async with employ(count=2) as workers`."""

    def begin(
        *, program: Sequence[str] = PROGRAM, count: int = 1, **settings: str
    ) -> AbstractAsyncContextManager[Hands]:
        return hands({**yard.environment, **settings}, tmp_path / "workers", count=count, program=program)

    return begin
