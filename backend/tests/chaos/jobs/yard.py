"""Everything that jobs meet, and what must hold of them afterwards."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx2
from app.core.db import DATABASE_ERRORS
from app.generations.spec import image_name, names_of_attempts
from app.storage.health import PROBE_SECONDS
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Serve
from tests.chaos.jobs.provider import CountingProvider
from tests.chaos.proxy import Proxy
from tests.features.usage.recorded import total
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.money.sums import wrong_sums
from tests.harness import Account, Key, looks
from tests.redis_server import RedisServer
from tests.standins.s3 import Fault, S3Server

BUCKET = "pictures"
LEASE_SECONDS, DRAWING_SECONDS = 3, 6
MOST = 12
"""Images of an account that may be drawn at a time."""
SETTINGS = {
    "JOB_LEASE_SECONDS": str(LEASE_SECONDS),
    "JOB_DEADLINE_SECONDS": str(DRAWING_SECONDS),
    "GENERATION_DEADLINE_SECONDS": str(DRAWING_SECONDS),
    "JOBS_PER_ACCOUNT": str(MOST),
    "BILLING": "on",
}
LOOK_SECONDS = 0.1
_START_SECONDS = 5
"""In which workers connect again, and others take the place of those that were started without a database."""
_UNFINISHED = "select count(*) from generations where status in ('queued', 'processing')"
_OVER_MOST = "select count(*) from over_most where account_id = $1"
_IMAGES = "select id, format, attempts, status from generations where account_id = $1"


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
    serve: Serve
    """Starts another server."""
    fleet: Fleet
    client: httpx2.AsyncClient
    environment: Mapping[str, str]
    """Of a worker."""
    folder: Path
    outages: list[tuple[datetime, datetime]] = field(default_factory=list)
    """When no worker could take a job: without the database, or the store."""

    async def stop_the_database_at_once(self, *, seconds: float) -> None:
        """For so long, as a power cut would."""
        with self._outage(longer_by=_START_SECONDS):
            await self.cluster.stop_at_once()
            await asyncio.sleep(seconds)
            await self.cluster.start()

    async def lose_the_store(self, fault: Fault, *, seconds: float) -> None:
        with self._outage(longer_by=PROBE_SECONDS):
            self.bucket.fail(fault, times=100_000)
            await asyncio.sleep(seconds)
            self.bucket.recover()

    @contextmanager
    def _outage(self, *, longer_by: float = 0) -> Iterator[None]:
        begin = datetime.now(UTC)
        yield
        self.outages.append((begin, datetime.now(UTC) + timedelta(seconds=longer_by)))

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

    async def until_swept(self, account: Account) -> Sequence[str]:
        """Waits until the bucket holds of this account's images those that are delivered; what it holds besides or
        lacks at last, as sentences.
        """
        rows = await execute(self.own, _IMAGES, account.account_id)
        mine = {each for row in rows for each in names_of_attempts(row["id"], row["format"], row["attempts"])}
        delivered = {
            image_name(row["id"], row["format"], max(row["attempts"], 1))
            for row in rows
            if row["status"] == "delivered"
        }
        for _ in looks():
            kept = mine & set(self.bucket.buckets[BUCKET])
            if kept == delivered or delivered - kept:
                break
            await asyncio.sleep(LOOK_SECONDS)
        found = {"delivered and gone": delivered - kept, "kept for nobody": kept - delivered}
        return [f"{len(names)} images are {wrong}: {sorted(names)}" for wrong, names in found.items() if names]

    async def miscounted(self, account: Account, keys: Iterable[Key]) -> Sequence[str]:
        """What counters say wrongly, as sentences: usage, lanes, money, how many the account has running. Nobody works
        any more.
        """
        connection = await self.own.connect()
        mine = {account.account_id, *(key.id for key in keys)}
        for key in keys:
            await total(connection, key)
        wrong = [f"lanes: {tuple(row)}" for row in await wrong_lanes(connection) if row[0] in mine]
        wrong += [f"money: {tuple(row)}" for row in await wrong_sums(connection) if row["id"] in mine]
        if over := await connection.fetchval(_OVER_MOST, account.account_id):
            wrong.append(f"too many running, {over} times")
        await connection.close()
        return wrong


async def execute(database: Cluster, statement: str, *values: object) -> Sequence[asyncpg.Record]:
    connection = await database.connect()
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()
