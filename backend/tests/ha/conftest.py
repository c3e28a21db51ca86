"""A database of three hosts, and a server for each way to reach it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import httpx2
import pytest
from app import migrations
from tests.chaos.fleet import Fleet, serving
from tests.ha import programs, report
from tests.ha.cluster import WAYS, PatroniCluster
from tests.ha.report import Results
from tests.harness import Account, sign_up
from tests.redis_server import redis_server

WORKERS = 2

collect_ignore = [] if programs.are_installed() else ["test_failover.py", "test_jobs.py"]  # `make ha` installs them


@pytest.fixture(scope="session", autouse=True)
def _a_run_that_is_terminated_ends_what_it_started() -> Iterator[None]:
    """SIGTERM is what Ctrl-C is: fixtures are torn down."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PatroniCluster]:
    cluster = PatroniCluster(tmp_path_factory.mktemp("ha"))
    async with cluster.running():
        yield cluster


@pytest.fixture(scope="session")
async def servers(cluster: PatroniCluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Fleet]]:
    """By the name of the way to the database. They outlive all faults: none is started again."""
    await asyncio.to_thread(migrations.upgrade, cluster.urls[WAYS[1]])
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
        yield {
            way: await stack.enter_async_context(
                serving(url, redis.url, tmp_path_factory.mktemp("server"), workers=WORKERS)
            )
            for way, url in cluster.urls.items()
        }


@pytest.fixture
async def accounts(servers: dict[str, Fleet]) -> AsyncIterator[dict[str, Account]]:
    """A new account on each of the servers."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=each.url, timeout=30))
            for each in servers.values()
        ]
        yield {way: await sign_up(client) for way, client in zip(servers, clients, strict=True)}


@pytest.fixture(scope="session")
def results() -> Iterator[Results]:
    """What callers met. It is written into docs/reliability.md when it is complete."""
    results: Results = {}
    yield results
    report.write(results)
