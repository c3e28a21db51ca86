"""Everything that jobs meet, and what must hold of them afterwards."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import httpx2
from app.core.db import DATABASE_ERRORS
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet
from tests.chaos.jobs.provider import CountingProvider
from tests.chaos.proxy import Proxy
from tests.features.usage.recorded import total
from tests.generations.jobs.lanes import wrong_lanes
from tests.harness import Account, Key, looks, sign_up
from tests.redis_server import RedisServer
from tests.standins.s3 import S3Server

BUCKET = "pictures"
LEASE_SECONDS, DRAWING_SECONDS = 3, 6
MOST = 12
"""Images of an account that may be drawn at a time."""
SETTINGS = {
    "JOB_LEASE_SECONDS": str(LEASE_SECONDS),
    "JOB_DEADLINE_SECONDS": str(DRAWING_SECONDS),
    "GENERATION_DEADLINE_SECONDS": str(DRAWING_SECONDS),
    "JOBS_PER_ACCOUNT": str(MOST),
}
LOOK_SECONDS = 0.1
_UNFINISHED = "select count(*) from generations where status in ('queued', 'processing')"
_OVER_MOST = "select count(*) from over_most"
_DELIVERED = "select id, format from generations where status = 'delivered'"


@dataclass
class Yard:
    """A database, the way to it, Redis, a bucket, a provider, and a server that accepts jobs and does not work."""

    cluster: Cluster
    """Starts and stops the server of `own`."""
    own: Cluster
    proxy: Proxy
    redis: RedisServer
    bucket: S3Server
    provider: CountingProvider
    fleet: Fleet
    client: httpx2.AsyncClient
    environment: Mapping[str, str]
    """Of a worker."""
    folder: Path
    outages: list[tuple[datetime, datetime]] = field(default_factory=list)
    """When there was no database."""

    async def account(self) -> Account:
        return await sign_up(self.client)

    async def stop_the_database_at_once(self, *, seconds: float) -> None:
        """For so long, as a power cut would. The time includes what a process may need to connect again."""
        begin = datetime.now(UTC)
        await self.cluster.stop_at_once()
        await asyncio.sleep(seconds)
        await self.cluster.start()
        self.outages.append((begin, datetime.now(UTC)))

    async def unfinished(self) -> int:
        """How many images wait or are drawn; many where nobody can say."""
        with suppress(*DATABASE_ERRORS, OSError):
            connection = await self.own.connect()
            try:
                count: int = await connection.fetchval(_UNFINISHED)
            finally:
                connection.terminate()
            return count
        return 1_000_000

    async def until_all_ended(self) -> None:
        for _ in looks():
            if not await self.unfinished():
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise AssertionError(f"{await self.unfinished()} images do not end")

    async def kept(self) -> set[str]:
        """The names of the images in the bucket, without thumbnails and what a store tries itself out with."""
        return {name for name in self.bucket.buckets[BUCKET] if name.startswith("gen_")}

    async def until_swept(self) -> Sequence[str]:
        """Waits until the bucket holds the delivered images alone; what it holds besides or lacks at last."""
        connection = await self.own.connect()
        delivered = {f"{row['id']}.{row['format']}" for row in await connection.fetch(_DELIVERED)}
        await connection.close()
        if missing := delivered - await self.kept():
            return [f"{len(missing)} delivered images are gone: {missing}"]
        for _ in looks():
            if await self.kept() == delivered:
                return []
            await asyncio.sleep(LOOK_SECONDS)
        return [f"{len(await self.kept() - delivered)} images of nobody are kept"]

    async def miscounted(self, keys: Iterable[Key]) -> Sequence[str]:
        """What counters say wrongly: usage, lanes, how many an account has running. Nobody works any more."""
        connection = await self.own.connect()
        for key in keys:
            await total(connection, key)
        wrong = [f"lanes: {tuple(row)}" for row in await wrong_lanes(connection)]
        if over := await connection.fetchval(_OVER_MOST):
            wrong.append(f"an account had too many running, {over} times")
        await connection.close()
        return wrong


async def execute(database: Cluster, statement: str, *values: object) -> Sequence[asyncpg.Record]:
    connection = await database.connect()
    rows = await connection.fetch(statement, *values)
    await connection.close()
    return list(rows)
