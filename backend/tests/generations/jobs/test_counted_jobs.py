"""How many jobs wait, run and end is seen in the metrics, by `check`, and where the worker has died by `/ready`."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from app import database_check
from app.assembly import open_services
from app.core.db import connect_for_writing
from app.core.errors import Unavailable
from app.core.settings import Settings
from app.generations.jobs import cancel, work
from app.generations.jobs.worker import Worker
from app.generations.sweep import Sweeper
from app.readiness import check_ready
from tests.docs.commands_page import KEY, fill
from tests.generations.jobs.queued import queue
from tests.harness import PATIENCE_SECONDS, Key
from tests.test_cli import nanobanana_in_here

SEEN = """
nanobanana_jobs_waiting{class="now"} 2.0
nanobanana_jobs_waiting{class="batch"} 3.0
nanobanana_jobs_running{class="now"} 1.0
nanobanana_jobs_running{class="batch"} 0.0
nanobanana_jobs_ended_total{outcome="expired"} 1.0
nanobanana_jobs_ended_total{outcome="cancelled"} 1.0
nanobanana_jobs_ended_total{outcome="lost"} 0.0
"""
WAITED = "update generations set created_at = now() - interval '90 seconds' where id = $1"
EXPIRED = "update generations set lease_until = now() - interval '1 second' where id = $1"


async def test_jobs_are_counted_as_they_wait_run_and_end(
    new_database_url: str, settings: Settings, tmp_path: Path
) -> None:
    changed = Settings(**{**settings.model_dump(), "database_url": new_database_url})
    database = await connect_for_writing(new_database_url)
    await fill(database)
    key = Key(await database.fetchval("select id from api_keys"), KEY)
    async with open_services(changed) as services:
        oldest, cancelled, *_, expired = await queue(database, key, 5)
        await queue(database, key, 3, job_class="batch")
        await database.execute(WAITED, oldest)
        check = partial(nanobanana_in_here, tmp_path, "check", DATABASE_URL=new_database_url)
        said = await asyncio.to_thread(check)
        assert "database: ok, but 8 asynchronous images wait, and no worker has any" in said.stdout
        await database.execute(EXPIRED, expired)
        await work.sweep(services.generations)
        await cancel.cancel(services.generations, request_id=cancelled)
        [_] = await work.take(services.generations, jobs_max=1, account_most=9, key_most=9)
        await Sweeper(services.generations, services.engine, None, services.metrics).count()
        said = await asyncio.to_thread(check)
        assert "database: ok\n" in said.stdout
        lines = services.metrics.text().decode().splitlines()
    await database.close()
    assert set(SEEN.split("\n")[1:-1]) - set(lines) == set()
    [now] = [line for line in lines if line.startswith('nanobanana_jobs_oldest_seconds{class="now"}')]
    assert float(now.split()[-1]) < 60, "the oldest has been taken"


async def test_a_server_whose_worker_has_ended_is_not_ready(
    new_database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Settings(**{**settings.model_dump(), "database_url": new_database_url, "work": True})

    async def end(_worker: Worker, _seconds: float) -> None:
        return

    monkeypatch.setattr(database_check, "DATABASE_SECONDS_MAX", PATIENCE_SECONDS)
    async with open_services(changed) as services:
        await check_ready(services)
    monkeypatch.setattr(Worker, "run", end)
    async with open_services(changed) as services:
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="The worker of this process has ended"):
            await check_ready(services)
        services.draining.end_jobs()  # as before a reload
        await check_ready(services)
