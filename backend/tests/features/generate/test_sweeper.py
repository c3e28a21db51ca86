"""What nobody can ask for any more is forgotten: pictures of requests that a crash left behind, and old ones."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from app.assembly import Externals
from app.core.db import connect_for_writing
from app.core.settings import Settings
from pydantic import SecretStr
from tests.conftest import Start
from tests.features.generate.painted import PROVIDER_KEY, Painted, painted
from tests.harness import Clock, generate, looks, running, sign_up
from tests.standins.gemini import GeminiStandIn
from tests.standins.s3 import s3_server
from tests.standins.wire import serving

AS_AFTER_A_CRASH = """
    update generations set status = $2, delivered_at = null, created_at = now() - $3::interval,
      lease_until = case when $2 = 'processing' then now() + interval '10 minutes' - $3::interval end
    where id = $1
"""
LONG_AGO, NOW = timedelta(hours=1), timedelta(0)


async def _made(there: Painted) -> str:
    made: str = (await generate(there.client, there.key)).json()["id"]
    return made


def _files(settings: Settings, generation_id: str) -> list[Path]:
    return list((settings.data_dir / "pictures").rglob(f"{generation_id}*"))


async def _until_forgotten(database: asyncpg.Connection, generation_id: str) -> str:
    """The status of the generation, once its picture has been deleted."""
    forgotten = "select status from generations where id = $1 and deleted_at is not null"
    for _ in looks():
        if (status := await database.fetchval(forgotten, generation_id)) is not None:
            return str(status)
        await asyncio.sleep(0.01)
    raise AssertionError("it is still there")


@pytest.mark.parametrize("status", ["processing", "failed", "lost"])
async def test_a_picture_that_was_stored_and_never_recorded_is_deleted_when_its_lease_is_over(
    start: Start, settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    async with painted(start) as there:
        crashed, drawing, delivered = [await _made(there) for _ in range(3)]
        await database.execute(AS_AFTER_A_CRASH, crashed, status, LONG_AGO)
        await database.execute(AS_AFTER_A_CRASH, drawing, "processing", NOW)
        await start()
        assert await _until_forgotten(database, crashed) == ("lost" if status == "processing" else status)
        assert [len(_files(settings, each)) for each in (crashed, drawing, delivered)] == [0, 1, 1]
        left = await database.fetch("select status from generations where id = any($1)", [drawing, delivered])
        assert {row["status"] for row in left} == {"processing", "delivered"}


async def test_pictures_are_kept_for_as_long_as_the_operator_says(
    settings: Settings, database: asyncpg.Connection
) -> None:
    gemini = GeminiStandIn(api_key=PROVIDER_KEY)
    async with serving(gemini.answer) as url:
        drawing = {"image_provider": "gemini", "gemini_api_key": SecretStr(PROVIDER_KEY), "gemini_base_url": url}
        changed = Settings(**{**settings.model_dump(), **drawing})
        made = []
        for days in (3, 1):
            async with running(changed, Externals(clock=Clock(time.time() - days * 86_400))) as client:
                account = await sign_up(client)
                key = await account.create_key()
                made.append((await generate(client, key)).json()["id"])
        async with running(Settings(**{**changed.model_dump(), "image_retention_days": 2})) as client:
            assert await _until_forgotten(database, made[0]) == "delivered"
            assert [len(_files(settings, each)) for each in made] == [0, 1]
            assert [(await client.get(f"/v1/images/{each}.png")).status_code for each in made] == [404, 200]


async def test_what_cannot_be_deleted_now_is_deleted_later(
    new_database_url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not the database of all tests: the application that they share sweeps it too, and has no pictures in the bucket.
    database = await connect_for_writing(new_database_url)
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    with s3_server("pictures") as bucket:
        account = {"s3_access_key_id": bucket.key_id, "s3_secret_access_key": SecretStr(bucket.secret)}
        where = {"image_store": "s3", "s3_bucket": "pictures", "s3_endpoint": bucket.url, **account}
        async with painted(start, database_url=new_database_url, **where) as there:
            crashed = await _made(there)
            bucket.fail("slow_down", times=8, method="DELETE")
            await database.execute(AS_AFTER_A_CRASH, crashed, "failed", LONG_AGO)
            assert await _until_forgotten(database, crashed) == "failed"
            assert bucket.buckets["pictures"] == {}
            assert [seen.status for seen in bucket.seen if seen.method == "DELETE"][-1] == 204
    await database.close()
