"""A job that kills each worker that takes it ends as failed after three of them, and the next worker goes on."""

import asyncio
import signal
import sys
from pathlib import Path

from tests.generations.jobs.drawn_jobs import add_key
from tests.generations.jobs.lanes import wrong_lanes
from tests.harness import PATIENCE_SECONDS
from tests.standins.gemini import GeminiStandIn
from tests.standins.wire import serving
from tests.starts.test_work import PROVIDER_KEY, a_ledger, a_worker, record_jobs, settings_of, until_statuses
from tests.version_before.history import connected

_DIES = """
import os
from app.cli import main
from app.generations.jobs.drawing import JobDrawing
JobDrawing._plan = lambda _: os.kill(os.getpid(), 9)
main(["work"])
"""
DIES_OF_ANY_JOB = (sys.executable, "-c", _DIES)


async def test_a_job_that_kills_its_workers_has_failed_after_three(tmp_path: Path, new_database_url: str) -> None:
    provider = GeminiStandIn(api_key=PROVIDER_KEY)
    async with (
        serving(provider.answer) as url,
        connected(new_database_url) as database,
        a_ledger(new_database_url) as ledger,
    ):
        settings, key = {"JOB_LEASE_SECONDS": "1", **settings_of(url)}, await add_key(database)
        await record_jobs(ledger, key, 1)
        for deaths in range(3):
            async with a_worker(tmp_path, new_database_url, DIES_OF_ANY_JOB, **settings) as dying:
                assert await asyncio.wait_for(dying.wait(), PATIENCE_SECONDS) == -signal.SIGKILL
            assert await database.fetchval("select max(attempts) from generations") == deaths + 1
        async with a_worker(tmp_path, new_database_url, **settings):
            await until_statuses(database, failed=1)
            await record_jobs(ledger, key, 1)
            await until_statuses(database, failed=1, delivered=1)
        assert await database.fetchval("select error from generations where status = 'failed'") == "attempts_exhausted"
        assert await wrong_lanes(database) == []
        assert sum(each.method == "POST" for each in provider.seen) == 1
