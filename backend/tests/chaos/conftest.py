"""What the fault tests stand on: a PostgreSQL of their own, a way to it that breaks, a Redis of their own, and four
workers.
"""

import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Serve, serving
from tests.chaos.ground import Ground
from tests.chaos.load import Call
from tests.chaos.models import models_on_standins
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import Schedule
from tests.harness import sign_up
from tests.redis_server import RedisServer, redis_server

DEADLINE_SECONDS = 2


@pytest.fixture(autouse=True)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    """The schedule of this test. It is printed, and CHAOS_SEED repeats it."""
    seed = os.environ.get("CHAOS_SEED") or secrets.token_hex(4)
    sys.stdout.write(f"\n{request.node.name}: CHAOS_SEED={seed}\n")
    return Schedule(seed)


@pytest.fixture
def journal() -> list[Call]:
    """What callers were told in this test."""
    return []


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("chaos") / "data")
    await cluster.prepare()
    yield cluster
    await cluster.stop()


@pytest.fixture(scope="session")
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    proxy = Proxy(lambda: cluster.socket)
    async with proxy.listening():
        yield proxy


@pytest.fixture(scope="session")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that nobody else minds losing."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def serve(cluster: Cluster, proxy: Proxy, own_redis: RedisServer, tmp_path: Path) -> Serve:
    """Starts another server: `async with serve(workers=2) as fleet`."""
    return partial(serving, cluster.url_through(proxy.port), own_redis.url, tmp_path)


@pytest.fixture
async def own_cluster(cluster: Cluster) -> Cluster:
    """With a database that no other server sweeps: it would find no files for what it deletes."""
    return await cluster.with_new_database()


@pytest.fixture
def serve_alone(own_cluster: Cluster, proxy: Proxy, own_redis: RedisServer, tmp_path: Path) -> Serve:
    """Starts a server on `own_cluster`."""
    return partial(serving, own_cluster.url_through(proxy.port), own_redis.url, tmp_path)


@pytest.fixture(scope="session")
async def fleet(
    cluster: Cluster, proxy: Proxy, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    """Four workers with a file of models, shared by the tests that do not end them."""
    folder = tmp_path_factory.mktemp("fleet")
    start: Serve = partial(serving, cluster.url_through(proxy.port), own_redis.url, folder)
    async with (
        models_on_standins(folder) as models,
        start(RECORD_DEADLINE_SECONDS=str(DEADLINE_SECONDS), **models) as fleet,
    ):
        yield fleet


@pytest.fixture
async def ground(cluster: Cluster, proxy: Proxy, own_redis: RedisServer, fleet: Fleet) -> AsyncIterator[Ground]:
    """The shared workers with everything in order, before and after the test."""
    proxy.open()
    async with httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client:
        yield Ground(cluster, proxy, own_redis, fleet, await sign_up(client))
    proxy.open()
