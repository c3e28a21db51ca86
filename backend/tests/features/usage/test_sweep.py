"""Idempotency keys older than a day are deleted while calls are served."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx2
from tests.conftest import Start
from tests.harness import generate, looks, sign_up


async def test_expired_idempotency_keys_are_deleted(start: Start, database: asyncpg.Connection) -> None:
    client: httpx2.AsyncClient = await start()
    key = await (await sign_up(client)).create_key()
    old, young = bytes(32), bytes(31) + b"\1"
    columns = ("scope", "fingerprint", "generation_id", "created_at")
    now = datetime.now(UTC)
    rows = [(old, old, "gen_x", now - timedelta(hours=25)), (young, young, "gen_x", now - timedelta(hours=23))]
    await database.copy_records_to_table("claims", records=rows, columns=columns)
    assert (await generate(client, key)).status_code == 200
    there = "select scope from claims where scope = any($1)"
    for _ in looks():
        left = {row["scope"] for row in await database.fetch(there, [old, young])}
        if left == {young}:
            break
        await asyncio.sleep(0.01)
    assert left == {young}
    await database.execute("delete from claims where scope = $1", young)
