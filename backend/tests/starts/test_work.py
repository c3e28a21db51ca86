"""`nanobanana work` as a process: it draws what waits, and lets go of everything when a signal comes."""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest
from app.core.db import connect_for_writing
from app.generations.ledger import Ledger
from app.generations.ledger.queue import PendingRecord
from app.generations.ledger.writer import Writer
from tests.generations.jobs.drawn_jobs import PROVIDER_KEY, add_key
from tests.generations.jobs.lanes import new_job, wrong_lanes
from tests.harness import PATIENCE_SECONDS, Key, free_port, looks
from tests.standins.gemini import GeminiStandIn, slow
from tests.standins.wire import serving
from tests.starts.test_signals import LOG_IN
from tests.test_cli import environment
from tests.version_before.history import connected

NANOBANANA = (sys.executable, "-m", "app.cli")
WEB = ("fastapi", "starlette", "uvicorn")


def test_the_worker_imports_no_web_framework() -> None:
    program = "import sys; import app.worker; from app.cli import main; main(['work', '--help'], standalone_mode=False)"
    shown = f"{program}; print(sorted(set(sys.modules) & {set(WEB)}))"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


LOSES_ITS_SIGNAL = """
import signal, weakref
from app import worker
from app.cli import main

class Freed:
    pass

def run_after_a_lost_signal(settings, stop, run=worker.run):
    freed = Freed()
    last = weakref.ref(freed, lambda _: signal.raise_signal(signal.SIGTERM))
    del freed  # what its callback raises is ignored
    print("lost", flush=True)
    run(settings, stop)

worker.run = run_after_a_lost_signal
main(["work"])
"""


def test_a_signal_that_comes_in_a_callback_while_the_worker_starts_ends_it(data_dir: Path, database_url: str) -> None:
    """As in the collector's: CPython ignores what a callback raises, and went on without the signal."""
    command = [sys.executable, "-c", LOSES_ITS_SIGNAL]
    settings = environment(data_dir, DATABASE_URL=database_url)
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "lost\n")


@asynccontextmanager
async def a_worker(
    data_dir: Path, database_url: str, command: Sequence[str] = (*NANOBANANA, "work"), /, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running `nanobanana work` or `serve`, whose lines go to the file `stderr`. It is killed at the end."""
    with (data_dir / "stderr").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment(data_dir, DATABASE_URL=database_url, **settings),
            stderr=errors,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def a_ledger(database_url: str) -> AsyncIterator[Ledger]:
    ledger = Ledger(Writer(lambda: connect_for_writing(database_url)), queue_max=1000, deadline_seconds=30)
    ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


async def record_jobs(ledger: Ledger, key: Key, number: int) -> Sequence[PendingRecord]:
    records = [new_job(key) for _ in range(number)]
    for each in records:
        each.size, each.provider = "1024x1024", "gemini"
        await ledger.record(each)
    return records


async def until_statuses(database: asyncpg.Connection, **statuses: int) -> None:
    """Returns once the generations have these statuses."""
    for _ in looks():
        found = Counter(row["status"] for row in await database.fetch("select status from generations"))
        if found == statuses:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(found)


def settings_of(url: str) -> dict[str, str]:
    return {"IMAGE_PROVIDER": "gemini", "GEMINI_API_KEY": PROVIDER_KEY, "GEMINI_BASE_URL": url}


async def until_said(data_dir: Path, event: str) -> None:
    """Returns once the worker has logged this."""
    for _ in looks():
        if event in events_of(data_dir):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(events_of(data_dir))


async def until_shown(client: httpx2.AsyncClient, *texts: str) -> None:
    """Returns once the metrics have these lines."""
    for _ in looks():
        shown = (await client.get("/metrics")).text
        if all(text in shown for text in texts):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(shown)


async def until_sent(provider: GeminiStandIn) -> None:
    """Returns once the provider is drawing."""
    for _ in looks():
        if any(each.method == "POST" for each in provider.seen):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is not asked")


def events_of(data_dir: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (data_dir / "stderr").read_text().splitlines() if line[0] == "{"]


@pytest.mark.parametrize("is_impatient", [False, True])
async def test_a_stopped_worker_gives_back_what_was_not_sent_and_ends_once_the_rest_is_drawn(
    tmp_path: Path, new_database_url: str, is_impatient: bool
) -> None:
    provider, gate, port = GeminiStandIn(api_key=PROVIDER_KEY), asyncio.Event(), str(free_port())
    async with (
        serving(provider.answer) as url,
        connected(new_database_url) as database,
        a_ledger(new_database_url) as ledger,
        a_worker(tmp_path, new_database_url, PROVIDER_CALLS_MAX="1", METRICS_PORT=port, **settings_of(url)) as process,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client,
    ):
        await until_said(tmp_path, "work_started")
        provider.faults.append(slow(gate))
        await record_jobs(ledger, await add_key(database), 3)
        await until_statuses(database, processing=3)
        await until_sent(provider)
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "degraded": []})
        process.send_signal(signal.SIGTERM)
        await until_statuses(database, processing=1, queued=2)
        assert await database.fetchval("select max(attempts) from generations where status = 'queued'") == 0
        assert await wrong_lanes(database) == []
        assert [(await client.get(path)).status_code for path in ("/health", "/ready")] == [200, 503]
        await until_shown(
            client, "nanobanana_worker_jobs 1.0", 'nanobanana_worker_jobs_ended_total{outcome="given_back"} 2.0'
        )
        if is_impatient:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
            await until_statuses(database, processing=1, queued=2)
        gate.set()
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 128 + signal.SIGTERM
        if not is_impatient:
            await until_statuses(database, delivered=1, queued=2)
            assert events_of(tmp_path)[-2:] == ["work_stopping", "work_stopped"]


async def test_a_stopped_server_does_the_same_while_requests_are_still_answered(
    tmp_path: Path, new_database_url: str
) -> None:
    provider, gate, port = GeminiStandIn(api_key=PROVIDER_KEY), asyncio.Event(), str(free_port())
    settings = {"PROVIDER_CALLS_MAX": "1", "PORT": port}
    async with (
        serving(provider.answer) as url,
        connected(new_database_url) as database,
        a_ledger(new_database_url) as ledger,
        a_worker(tmp_path, new_database_url, (*NANOBANANA, "serve"), **settings, **settings_of(url)) as process,
    ):
        await until_said(tmp_path, "worker_started")
        provider.faults.append(slow(gate))
        await record_jobs(ledger, await add_key(database), 3)
        await until_statuses(database, processing=3)
        await until_sent(provider)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(LOG_IN + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")  # it waits for the body
        answered = asyncio.create_task(reader.read(1))
        process.send_signal(signal.SIGTERM)
        await until_statuses(database, processing=1, queued=2)
        assert not answered.done()
        writer.close()
        gate.set()
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 128 + signal.SIGTERM
        await until_statuses(database, delivered=1, queued=2)
