"""`python -m benchmarks.lists`, from `backend`: the list by status of an account with very many delivered images, with
the index of what has ended without an image and without it. By HTTP, one call after another.
"""

import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from secrets import token_urlsafe

import asyncpg
import httpx2
from app.core.db import create_engine
from app.core.security import new_timed_id
from app.generations.partitions import ensure_partitions
from benchmarks.machine import WIDE_OPEN, database, free_port, machine, new_key, serving

ROWS, ENDED, MONTHS, CALLS = 2_000_000, 10, 5, 20
STATUSES = "failed", "lost,cancelled", "failed,queued", "queued,processing", "delivered"
_MONTH = timedelta(days=30)

_ADD_ROWS = """
insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status, delivered_at)
select i.id, i.id, k.account_id, k.environment, k.id, 'A cute banana', '1024x1024', 'gemini', 'delivered', now()
from api_keys k, unnest($1::text[]) i(id)
"""
_END = "update generations set status = 'failed', delivered_at = null where id = any($1)"
_DROP = "drop index generations_undelivered_of_account_idx"


async def _fill(url: str) -> None:
    engine, connection = create_engine(url, pool_size=1), await asyncpg.connect(url.replace("+asyncpg", ""))
    async with engine.connect() as pooled:
        for month in range(MONTHS):
            await ensure_partitions(pooled, datetime.now(UTC) + month * _MONTH)
    begin, step = time.time(), MONTHS * _MONTH.total_seconds() / ROWS
    ids = [new_timed_id("gen", now=begin + number * step) for number in range(ROWS)]
    await connection.execute(_ADD_ROWS, ids)
    await connection.execute(_END, ids[ROWS // ENDED // 2 :: ROWS // ENDED])
    await connection.execute("vacuum analyze generations")
    await connection.close()
    await engine.dispose()


def _times(client: httpx2.Client, status: str) -> list[float]:
    """Milliseconds of each call."""
    times: list[float] = []
    for _ in range(CALLS):
        began = time.perf_counter()
        client.get("/v1/generations", params={"status": status}).raise_for_status()
        times.append((time.perf_counter() - began) * 1e3)
    return times


async def _drop(url: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(_DROP)
    await connection.close()


def main() -> None:
    with ExitStack() as stack:
        url, port = stack.enter_context(database()), free_port()
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-lists-"))
        settings = {**WIDE_OPEN, "DATABASE_URL": url, "DATA_DIR": folder, "SECRET_KEY": token_urlsafe(48)}
        server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
        headers = {"Authorization": f"Bearer {new_key(server.url)}"}
        asyncio.run(_fill(url))
        client = stack.enter_context(httpx2.Client(base_url=server.url, headers=headers, timeout=60))
        with_index = {status: _times(client, status) for status in STATUSES}
        asyncio.run(_drop(url))
        without = {status: _times(client, status) for status in STATUSES}
    print(f"{machine()}\n{ROWS:,} rows, {ENDED} of them failed; medians of {CALLS} calls, and the longest\n")
    print("| status | ms | longest | without the index | longest |\n|---|---|---|---|---|")
    for status in STATUSES:
        cells = [f"{of(each[status]):.1f}" for each in (with_index, without) for of in (statistics.median, max)]
        print(f"| {status} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
