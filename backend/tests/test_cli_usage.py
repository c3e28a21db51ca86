"""`nanobanana usage reconcile`: it compares the counters with the ledger, and reports every difference."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from app.core.security import time_prefix
from app.core.settings import Settings
from sqlalchemy.engine import make_url
from tests.harness import Account, Key, generate, running, sign_up
from tests.test_cli import nanobanana, nanobanana_in_here

COUNT = """
    insert into usage select key_id, (delivered_at at time zone 'UTC')::date, count(*) from generations group by 1, 2
"""
COUNTED = "nano-banana: images counted"
MOVE_TO_YESTERDAY = """
    update generations set delivered_at = delivered_at - interval '1 day' where key_id = $1
    returning (delivered_at at time zone 'UTC')::date::text
"""
MOVE_WITHIN_THE_DAY = """
    update generations set delivered_at = ((delivered_at at time zone 'UTC')::date + $2::interval) at time zone 'UTC'
    where id = $1
"""
DELIVER_OLDEST_LAST = """
    update generations set delivered_at = delivered_at + interval '1 day' where id = (select min(id) from generations)
"""
REMOVE_ONE = "delete from generations where id = (select max(id) from generations where key_id = $1)"


@dataclass(frozen=True)
class Used:
    """A database of its own with generations, and a connection to alter it."""

    url: str
    database: asyncpg.Connection
    account: Account
    keys: list[Key]

    async def check_differences(self, folder: Path, days: int, *lines: str) -> None:
        done = await asyncio.to_thread(nanobanana_in_here, folder, "usage", "reconcile", DATABASE_URL=self.url)
        assert (done.returncode, done.stderr) == (1 if lines else 0, "")
        assert done.stdout.splitlines() == [*lines, f"{days} days compared, {len(lines)} differences."]

    async def day(self) -> str:
        day: str = await self.database.fetchval("select max(day)::text from usage")
        return day


@pytest.fixture
def empty(new_database_url: str, settings: Settings) -> Settings:
    """Settings of an unused database."""
    return Settings(**{**settings.model_dump(), "database_url": new_database_url})


@pytest.fixture
async def used(empty: Settings) -> AsyncIterator[Used]:
    """Two keys with three and two images, all on one day."""
    assert empty.database_url
    url = empty.database_url.get_secret_value()
    connectable = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    database = await asyncpg.connect(connectable)
    async with running(empty) as client:
        account = await sign_up(client)
        keys = sorted([await account.create_key(), await account.create_key()], key=lambda key: key.id)
        for key in (keys[0], keys[1], keys[0], keys[1], keys[0]):
            assert (await generate(client, key)).status_code == 200
        await _on_one_day(database)
        yield Used(url, database, account, keys)
    await database.close()


async def _on_one_day(database: asyncpg.Connection) -> None:
    """Moves all generations to one day, in case midnight came between them."""
    await database.execute("update generations set delivered_at = (select min(delivered_at) from generations)")
    await database.execute("delete from usage")
    await database.execute(COUNT)


async def test_an_unused_database_has_no_differences(empty: Settings, tmp_path: Path) -> None:
    assert empty.database_url
    url = empty.database_url.get_secret_value()
    done = await asyncio.to_thread(nanobanana, tmp_path, "usage", "reconcile", DATABASE_URL=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 days compared, 0 differences.\n", "")


async def test_a_job_that_was_delivered_after_what_was_asked_for_later_is_compared(used: Used, tmp_path: Path) -> None:
    await used.database.execute(DELIVER_OLDEST_LAST)
    day = await used.database.fetchval("select (max(delivered_at) at time zone 'UTC')::date::text from generations")
    [lost] = await used.database.fetch("delete from usage where key_id = $1 returning day::text", used.keys[0].id)
    lines = [
        f"{lost['day']} {used.keys[0].id} {COUNTED} 0, recorded 2",
        f"{day} {used.keys[0].id} {COUNTED} 0, recorded 1",
    ]
    await used.check_differences(tmp_path, 2, *lines)


async def test_a_used_database_has_no_differences_and_is_not_changed(used: Used, tmp_path: Path) -> None:
    before = await used.database.fetch("select * from usage order by key_id")
    await used.check_differences(tmp_path, 1)
    assert await used.database.fetch("select * from usage order by key_id") == before


async def test_generations_that_were_not_delivered_need_no_counter(used: Used, tmp_path: Path) -> None:
    insert = "insert into generations (id, key_id, prompt, size, provider, status) values ($1, $2, 'a', 'b', 'c', $3)"
    for number, status in enumerate(("processing", "failed", "lost")):
        await used.database.execute(insert, f"gen_{number}", used.keys[0].id, status)
    await used.check_differences(tmp_path, 1)


@pytest.mark.parametrize("counted", [2, 4, 9_223_372_036_854_775_807])
async def test_a_counter_that_was_changed_is_reported_with_its_key_and_day(
    used: Used, tmp_path: Path, counted: int
) -> None:
    key_id, day = used.keys[0].id, await used.day()
    await used.database.execute("update usage set pictures = $2 where key_id = $1", key_id, counted)
    await used.check_differences(tmp_path, 1, f"{day} {key_id} {COUNTED} {counted}, recorded 3")


async def test_missing_counters_are_reported_with_their_keys_and_day(used: Used, tmp_path: Path) -> None:
    day = await used.day()
    await used.database.execute("delete from usage")
    lines = [
        f"{day} {key.id} {COUNTED} 0, recorded {pictures}" for key, pictures in zip(used.keys, (3, 2), strict=True)
    ]
    await used.check_differences(tmp_path, 1, *lines)


async def test_a_counter_without_recorded_generations_is_reported_and_an_amount_that_nothing_was_charged_for(
    used: Used, tmp_path: Path
) -> None:
    key_id = used.keys[1].id
    insert = "insert into usage select $1, max(day) - 2, 7 from usage returning day::text"
    day = await used.database.fetchval(insert, key_id)
    charged = "update usage set amount = 5 where key_id = $1 returning day::text"
    charged_on = await used.database.fetchval(charged, used.keys[0].id)
    lines = [
        f"{day} {key_id} {COUNTED} 7, recorded 0",
        f"{charged_on} {used.keys[0].id} nano-banana: amount counted 5, recorded 0",
    ]
    await used.check_differences(tmp_path, 3, *lines)


async def test_a_generation_that_was_removed_or_moved_to_another_day_is_reported(used: Used, tmp_path: Path) -> None:
    [first, second], day = used.keys, await used.day()
    await used.database.execute(REMOVE_ONE, first.id)
    yesterday = (await used.database.fetch(MOVE_TO_YESTERDAY, second.id))[0][0]
    await used.check_differences(
        tmp_path,
        2,
        f"{yesterday} {second.id} {COUNTED} 0, recorded 2",
        *sorted(
            [
                f"{day} {first.id} {COUNTED} 3, recorded 2",
                f"{day} {second.id} {COUNTED} 2, recorded 0",
            ]
        ),
    )


@pytest.mark.parametrize("days", [40, -40], ids=["ahead", "behind"])
async def test_ids_that_begin_with_the_time_of_a_wrong_clock_make_no_difference(
    used: Used, tmp_path: Path, days: int
) -> None:
    first, day = used.keys[0], await used.day()
    at = await used.database.fetchval("select now() + make_interval(days => $1)", days)
    rename = "update generations set id = $2 || right(id, 20) where key_id = $1"
    await used.database.execute(rename, first.id, time_prefix("gen", at))
    await used.check_differences(tmp_path, 1)
    await used.database.execute(REMOVE_ONE, first.id)
    await used.check_differences(tmp_path, 1, f"{day} {first.id} {COUNTED} 3, recorded 2")


async def test_days_are_compared_as_utc_days(used: Used, tmp_path: Path) -> None:
    ids = [row["id"] for row in await used.database.fetch("select id from generations order by key_id")]
    almost_tomorrow = timedelta(days=1, microseconds=-1)
    times = timedelta(0), timedelta(microseconds=1), timedelta(hours=12), timedelta(hours=23), almost_tomorrow
    for generation_id, time in zip(ids, times, strict=True):
        await used.database.execute(MOVE_WITHIN_THE_DAY, generation_id, time)
    await used.check_differences(tmp_path, 1)


async def test_a_database_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://u:hunter2@127.0.0.1:1/n"
    done = await asyncio.to_thread(nanobanana_in_here, tmp_path, "usage", "reconcile", DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nanobanana: The database of DATABASE_URL cannot be reached")


@pytest.mark.parametrize(
    "command",
    [("usage", "report"), ("billing", "revenue"), ("billing", "reconcile"), ("images", "verify")],
    ids=" ".join,
)
@pytest.mark.parametrize("option", ["--from", "--to"])
def test_a_day_after_which_none_comes_is_refused_by_every_report(
    tmp_path: Path, command: Sequence[str], option: str
) -> None:
    done = nanobanana_in_here(tmp_path, *command, option, "9999-12-31")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("9999-12-31 is too late: no day comes after it.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("usage", "report", "--from"),
        ("usage", "report", "--to"),
        ("billing", "grant", "a@b.com", "5", "--expires"),
        ("billing", "reconcile", "--from"),
        ("billing", "revenue", "--to"),
        ("images", "verify", "--from"),
    ],
    ids=" ".join,
)
def test_what_is_no_day_is_refused_with_a_sentence_and_an_example(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for text in ("2026-1-5", "today", "2026-11-30T00:00", "2026-11-3\u0660", ""):
        refused = nanobanana_in_here(tmp_path, *arguments, text)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.endswith(f"Invalid value for '{arguments[-1]}': must be a day such as 2026-11-30\n")
    refused = nanobanana_in_here(tmp_path, *arguments, "2026-11-31")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith(f"Invalid value for '{arguments[-1]}': there is no 2026-11-31\n")


def test_what_is_no_month_is_refused_with_a_sentence_and_an_example(tmp_path: Path) -> None:
    for text, sentence in (
        ("2026-13", "there is no 2026-13"),
        ("2026-11-30", "must be a month such as 2026-11"),
    ):
        refused = nanobanana_in_here(tmp_path, "usage", "report", "--month", text)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.endswith(f"Invalid value for '--month': {sentence}\n")
