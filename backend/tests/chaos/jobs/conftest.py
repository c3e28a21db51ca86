"""What the fault tests of jobs share: a database of their own, a provider that counts, a bucket, and a server that
accepts and does not work.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import httpx2
import pytest
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Serve, environment_of, serving
from tests.chaos.jobs.hands import PROGRAM, Hands, hands
from tests.chaos.jobs.provider import counting_provider
from tests.chaos.jobs.trail import leave_trail
from tests.chaos.jobs.yard import BUCKET, MOST, SETTINGS, Yard
from tests.chaos.proxy import Proxy
from tests.harness import Account, sign_up
from tests.redis_server import RedisServer
from tests.standins.s3 import S3Server, s3_server

Employ = Callable[..., AbstractAsyncContextManager[Hands]]


@pytest.fixture(scope="session")
async def yard(
    cluster: Cluster, proxy: Proxy, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Yard]:
    """Everything that jobs meet, but for workers."""
    folder = tmp_path_factory.mktemp("jobs")
    own = await cluster.with_new_database()
    database = await own.connect()
    await leave_trail(database, most=MOST)
    await database.close()
    url = own.url_through(proxy.port)
    with s3_server(BUCKET) as bucket:
        async with counting_provider(folder) as provider:
            settings = {**SETTINGS, **provider.settings, **_settings_of(bucket)}
            environment = environment_of(url, own_redis.url, folder, **settings)
            serve: Serve = partial(serving, url, own_redis.url, folder)
            async with (
                serve(workers=2, WORK="off", **settings) as fleet,
                httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client,
            ):
                yield Yard(
                    cluster,
                    own,
                    proxy,
                    own_redis,
                    bucket,
                    provider,
                    partial(serve, WORK="off", **settings),
                    fleet,
                    client,
                    environment,
                    folder,
                )


def _settings_of(bucket: S3Server) -> dict[str, str]:
    return {
        "IMAGE_STORE": "s3",
        "S3_ENDPOINT": bucket.url,
        "S3_REGION": bucket.region,
        "S3_BUCKET": BUCKET,
        "S3_ACCESS_KEY_ID": bucket.key_id,
        "S3_SECRET_ACCESS_KEY": bucket.secret,
    }


@pytest.fixture
async def account(yard: Yard) -> Account:
    """A new one, with everything in order."""
    yard.proxy.open()
    yard.bucket.recover()
    return await sign_up(yard.client)


@pytest.fixture
def employ(yard: Yard, tmp_path: Path) -> Employ:
    """Starts workers: `async with employ(count=2) as workers`."""

    def begin(
        *, program: Sequence[str] = PROGRAM, count: int = 1, **settings: str
    ) -> AbstractAsyncContextManager[Hands]:
        return hands({**yard.environment, **settings}, tmp_path / "workers", count=count, program=program)

    return begin
