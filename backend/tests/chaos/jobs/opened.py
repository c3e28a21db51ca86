"""Opens a yard on a database that is there."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import httpx2
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import PROGRAM, Serve, environment_of, serving
from tests.chaos.jobs.provider import counting_provider
from tests.chaos.jobs.trail import leave_trail
from tests.chaos.jobs.yard import BUCKET, MOST, SETTINGS, Yard
from tests.chaos.proxy import Proxy
from tests.redis_server import RedisServer
from tests.standins.s3 import S3Server, s3_server


@asynccontextmanager
async def opened_yard(
    cluster: Cluster,
    own: Cluster,
    *,
    url: str,
    proxy: Proxy,
    redis: RedisServer,
    folder: Path,
    program: Sequence[str] = PROGRAM,
    workers: int = 2,
    more: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Yard]:
    """On the database `own`, which servers and workers reach by `url` and `cluster` starts and stops. The server is
    this program with so many workers, and with `more` settings.
    """
    database = await own.connect()
    await leave_trail(database, most=MOST)
    await database.close()
    with s3_server(BUCKET) as bucket:
        async with counting_provider(folder) as provider:
            settings = {**SETTINGS, **provider.settings, **_settings_of(bucket), **more}
            environment = environment_of(url, redis.url, folder, **settings)
            serve: Serve = partial(serving, url, redis.url, folder)
            async with (
                serve(program=program, workers=workers, WORK="off", **settings) as fleet,
                httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client,
            ):
                serve_alike = partial(serve, WORK="off", **settings)
                yield Yard(
                    *(cluster, own, proxy, redis, bucket, provider, serve_alike, fleet, client, environment, folder)
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
