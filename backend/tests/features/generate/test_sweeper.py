"""What nobody can ask for any more is forgotten: pictures of requests that a crash left behind, and old ones."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.core.security import time_prefix
from app.core.settings import Settings
from app.generations.sweep import Sweeper
from pydantic import SecretStr
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.scraped import METRICS_TOKEN, read, scrape
from tests.harness import generate, looks
from tests.standins.s3 import s3_server
from tests.test_cli import nanobanana_in_here

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


async def _prompts(database: asyncpg.Connection, *ids: str) -> list[str]:
    return [await database.fetchval("select prompt from generations where id = $1", each) for each in ids]


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
        assert await _prompts(database, crashed, drawing) == ["", "A cute banana"]


async def _aged(database: asyncpg.Connection, settings: Settings, generation_id: str, *, days: int) -> str:
    """The id of the generation, after it was made to look so many days older."""
    at = await database.fetchval("select now() - make_interval(days => $1)", days)
    older = f"{time_prefix('gen', at)}{generation_id[-20:]}"
    await database.execute("update generations set id = $2, created_at = $3 where id = $1", generation_id, older, at)
    for file in _files(settings, generation_id):
        file.rename(file.with_name(file.name.replace(generation_id, older)))
    return older


async def test_pictures_are_kept_for_as_long_as_the_operator_says(
    start: Start, settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    async with painted(start) as there:
        old, young = [await _aged(database, settings, await _made(there), days=days) for days in (3, 1)]
        await start(image_retention_days=2)
        assert await _until_forgotten(database, old) == "delivered"
        assert [len(_files(settings, each)) for each in (old, young)] == [0, 1]
        shown = [await there.client.get(f"/v1/images/{each}.png") for each in (old, young)]
        assert [each.status_code for each in shown] == [404, 200]
        assert await _prompts(database, old, young) == ["", "A cute banana"]


@pytest.mark.parametrize("days", [40, -40], ids=["ahead", "behind"])
async def test_with_the_clock_of_the_server_40_days_off_no_young_picture_is_deleted(
    start: Start,
    database: asyncpg.Connection,
    externals: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    externals["clock"] = lambda: time.time() + days * 86_400
    async with painted(start, image_retention_days=30) as there:
        yesterday, tomorrow = [
            time_prefix("gen", await database.fetchval("select now() + make_interval(days => $1)", by))
            for by in (-1, 1)
        ]
        for _ in looks():  # the first sweep of the ledger comes a moment after the start
            made = await _made(there)
            if yesterday < made < tomorrow:
                break
        assert yesterday < made < tomorrow, "its id begins with the time of the database"
        failed = await _made(there)
        await database.execute(AS_AFTER_A_CRASH, failed, "failed", NOW)
        await _until_forgotten(database, failed)
        assert (await there.client.get(f"/v1/images/{made}.png")).status_code == 200


async def test_a_picture_whose_id_begins_with_an_old_time_is_kept_while_it_is_young_by_the_databases_clock(
    start: Start, settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    async with painted(start) as there:
        misnamed = await _aged(database, settings, await _made(there), days=40)
        await database.execute("update generations set created_at = now() where id = $1", misnamed)
        old = await _aged(database, settings, await _made(there), days=31)
        await start(image_retention_days=30)
        await _until_forgotten(database, old)
        assert [len(_files(settings, each)) for each in (misnamed, old)] == [1, 0]


MANY = """
    insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status,
      created_at, delivered_at)
    select $1 || lpad(n::text, 20, '0'), 'gen_0', 'acc_0', 'live', 'key_0', 'A cute banana', '64x64', 'gemini',
      $3::text, at, case when $3 = 'delivered' then at end
    from generate_series(1, $2::int) n, (select now() - interval '32 days' as at) old returning id
"""
LEFT = "select count(*) from generations where deleted_at is null and delivered_at is not null"


async def test_a_sweep_that_finds_implausibly_many_old_pictures_deletes_none_until_an_operator_has(
    new_database_url: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    original, turn = Sweeper.sweep, asyncio.Lock()

    async def sweep_in_turn(sweeper: Sweeper) -> None:
        async with turn:
            await original(sweeper)

    monkeypatch.setattr(Sweeper, "sweep", sweep_in_turn)
    database = await connect_for_writing(new_database_url)
    long_ago = time_prefix("gen", await database.fetchval("select now() - interval '32 days'"))[:-1]

    async def sweep() -> None:
        """Returns when another turn has ended."""
        failed = await database.fetchval(MANY, f"{long_ago}x", 1, "failed")
        await _until_forgotten(database, failed)
        await database.execute("delete from generations where id = $1", failed)

    def expire(*options: str) -> list[str]:
        retention = {"DATABASE_URL": new_database_url, "IMAGE_RETENTION_DAYS": "30"}
        done = nanobanana_in_here(tmp_path, "images", "expire", *options, **retention)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    client = await start(database_url=new_database_url, image_retention_days=30, metrics_token=METRICS_TOKEN)
    for letter, images, left in (("y", 100, 0), ("z", 101, 101)):
        async with turn:  # a turn that has counted before would delete them
            await database.execute(MANY, f"{long_ago}{letter}", images, "delivered")
        for _ in range(2):
            await sweep()
        assert await database.fetchval(LEFT) == left
    [(_, stopped)] = read(await scrape(client))["nanobanana_sweeps_stopped"].items()
    assert stopped >= 1
    told = "101 images are older than 30 days by the database's clock."
    assert await asyncio.to_thread(expire) == [told, "Run it with --yes to delete them."]
    assert await database.fetchval(LEFT) == 101
    assert await asyncio.to_thread(expire, "--yes") == [told, "They are deleted."]
    assert await database.fetchval(LEFT) == 0
    await database.close()


async def test_what_cannot_be_deleted_now_is_deleted_later(
    new_database_url: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not the database of all tests: the application that they share sweeps it too, and has no pictures in the bucket.
    database = await connect_for_writing(new_database_url)
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    with s3_server("pictures") as bucket:
        account = {"s3_access_key_id": SecretStr(bucket.key_id), "s3_secret_access_key": SecretStr(bucket.secret)}
        where = {"image_store": "s3", "s3_bucket": "pictures", "s3_endpoint": bucket.url, **account}
        async with painted(start, database_url=new_database_url, **where) as there:
            crashed = await _made(there)
            bucket.fail("slow_down", times=8, method="DELETE")
            await database.execute(AS_AFTER_A_CRASH, crashed, "failed", LONG_AGO)
            assert await _until_forgotten(database, crashed) == "failed"
            assert bucket.buckets["pictures"] == {}
            assert [seen.status for seen in bucket.seen if seen.method == "DELETE"][-1] == 204
    await database.close()
