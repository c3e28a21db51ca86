"""The primary is lost under jobs and calls: each is delivered once, or ended once and its caller can read why."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from app import migrations
from tests.chaos.jobs.broken import broken_by
from tests.chaos.jobs.callers import JobCallers
from tests.chaos.jobs.faults import Fault, kill_a_worker, stop_the_database_at_once
from tests.chaos.jobs.hands import hands
from tests.chaos.jobs.opened import opened_yard
from tests.chaos.jobs.trail import remove_trail
from tests.chaos.jobs.yard import Yard
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import Schedule
from tests.ha.cluster import WAYS, PatroniCluster
from tests.ha.failing_over import FailingOver
from tests.harness import sign_up
from tests.redis_server import redis_server

FAILOVERS, KILLS = 3, 2


@pytest.fixture(params=WAYS)
async def yard(cluster: PatroniCluster, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Yard]:
    """On the database of three hosts, reached in each way."""
    url, database = cluster.urls[request.param], FailingOver(cluster)
    await cluster.settled()
    await asyncio.to_thread(migrations.upgrade, cluster.urls[WAYS[1]])
    untravelled = Proxy(lambda: "")
    with redis_server(tmp_path) as redis:
        async with opened_yard(database, database, url=url, proxy=untravelled, redis=redis, folder=tmp_path) as opened:
            yield opened
    connection = await database.connect()
    await remove_trail(connection)
    await connection.close()


async def test_whatever_fails_over_each_job_is_delivered_once_or_ended_once(yard: Yard, tmp_path: Path) -> None:
    callers = JobCallers(yard, await sign_up(yard.client), Schedule("failover"))
    async with hands(yard.environment, tmp_path / "workers", count=3) as workers:
        faults: Mapping[Fault, int] = {stop_the_database_at_once: FAILOVERS, kill_a_worker: KILLS}
        assert await broken_by(faults, callers, workers) == []
