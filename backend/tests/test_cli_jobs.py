"""`nanobanana jobs` beyond the examples of docs/commands.md: what it changes, and what it refuses and why."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from app.core.db import connect_for_writing
from tests.docs.commands_page import KEY, fill
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.jobs.queued import queue
from tests.harness import Key
from tests.test_cli import nanobanana_in_here

OWNER = "grace@example.com"
END = """
update generations set status = $2, error = case when $2 = 'failed' then 'provider_failed' end,
  sent_at = case when $3 then now() end, delivered_at = case when $2 = 'delivered' then now() end,
  deleted_at = case when $4 then now() end, lease_until = case when $2 = 'processing' then lease_until end
where id = any($1)
"""
LEFT = """
update {} set waiting = (select count(*) from generations where status = 'queued'), running = 1 where class = 'now'
"""
COUNT = "select count(*) from generations where id = any($1) and status = $2"


@dataclass(frozen=True)
class Operated:
    """A database with jobs: those that wait, and by name those that do not."""

    database: asyncpg.Connection
    url: str
    folder: Path
    key: Key
    waiting: Sequence[str]
    others: dict[str, str]

    async def run(self, *arguments: str, status: int = 0) -> list[str]:
        """What `nanobanana jobs` prints."""
        words = ("jobs", *(self.others.get(each, each) for each in arguments))
        done = await asyncio.to_thread(nanobanana_in_here, self.folder, *words, DATABASE_URL=self.url)
        assert (done.returncode, done.stderr) == (status, ""), done.stdout
        return done.stdout.splitlines()


@pytest.fixture
async def operated(new_database_url: str, tmp_path: Path) -> AsyncIterator[Operated]:
    database = await connect_for_writing(new_database_url)
    await fill(database)
    key = Key(await database.fetchval("select id from api_keys"), KEY)
    waiting, others = await queue(database, key, 3), await queue(database, key, 4)
    sent, delivered, erased, failed = others
    for job, status, was_sent, is_deleted in (
        (sent, "processing", True, False),
        (delivered, "delivered", True, False),
        (erased, "failed", False, True),
        (failed, "failed", False, False),
    ):
        await database.execute(END, [job], status, was_sent, is_deleted)
    for table in ("lanes", "lane_keys"):
        await database.execute(LEFT.format(table))
    assert await wrong_lanes(database) == []
    named = {"SENT": sent, "DELIVERED": delivered, "ERASED": erased, "FAILED": failed}
    yield Operated(database, new_database_url, tmp_path, key, waiting, named)
    await database.close()


REFUSED = {
    ("cancel", "SENT"): "a provider was asked for it, and may have to be paid",
    ("cancel", "DELIVERED"): "it has ended: delivered",
    ("cancel", "gen_nothing"): "there is no such job",
    ("requeue", "SENT"): "it has not ended",
    ("requeue", "DELIVERED"): "it was delivered",
    ("requeue", "ERASED"): "its prompt is erased: it expired more than a day ago, or it or its account was deleted",
    ("requeue", "gen_nothing"): "there is no such job",
}
STOPPED = {
    "update api_keys set is_suspended = true": "its account is disabled",
    "update api_keys set revoked_at = now()": "its key key_28fm63cjp43w44255s68 is revoked",
}


async def test_what_cannot_be_changed_is_left_alone_and_it_is_said_why(operated: Operated) -> None:
    rows = "select * from generations where expires_at is not null order by id"
    before = await operated.database.fetch(rows)
    for (command, job), why in REFUSED.items():
        [said] = await operated.run(command, job, "--yes", status=1)
        assert said.endswith(f": not {'cancelled' if command == 'cancel' else 'queued'}: {why}.")
    for stop, why in STOPPED.items():
        await operated.database.execute(stop)
        [said] = await operated.run("requeue", "FAILED", "--yes", status=1)
        assert said.endswith(f": not queued: {why}.")
    assert await operated.database.fetch(rows) == before
    assert await wrong_lanes(operated.database) == []


@pytest.mark.parametrize("which", [("--account", OWNER), ("--key", "key_28fm63cjp43w44255s68"), ()])
async def test_what_waits_is_counted_and_with_a_confirmation_cancelled(
    which: tuple[str, ...], operated: Operated
) -> None:
    named = which or tuple(operated.waiting)
    assert (await operated.run("cancel", *named))[-1].endswith("--yes to cancel them." if which else "--yes to do so.")
    assert await operated.database.fetchval(COUNT, operated.waiting, "queued") == 3
    said = await operated.run("cancel", *named, "--yes")
    assert said == (["3 images are cancelled."] if which else [f"{each}: 1 images are cancelled." for each in named])
    assert await operated.database.fetchval(COUNT, operated.waiting, "cancelled") == 3
    assert await operated.database.fetchval(COUNT, [operated.others["SENT"]], "processing") == 1
    assert await wrong_lanes(operated.database) == []


async def test_a_failed_job_waits_again_and_all_is_shown(operated: Operated) -> None:
    assert len(await operated.run("requeue", "FAILED")) == 2
    assert await operated.database.fetchval(COUNT, [operated.others["FAILED"]], "failed") == 1
    assert await operated.run("requeue", "FAILED", "--yes") == [f"{operated.others['FAILED']}: 1 images are queued."]
    [now, batch, lane] = [json.loads(line) for line in await operated.run("show", "--json")]
    assert (now["class"], now["waiting"], now["running"]) == ("now", 4, 1)
    assert (batch["class"], batch["waiting"], batch["oldest_seconds"]) == ("batch", 0, 0)
    assert (lane["email"], lane["waiting"], lane["running"]) == (OWNER, 4, 1)
    await operated.database.execute(
        "update generations set created_at = now() - interval '1 hour' where id = $1", operated.waiting[0]
    )
    [now, *_] = [json.loads(line) for line in await operated.run("show", "--json")]
    assert 3600 <= now["oldest_seconds"] < 7200
    shown = [json.loads(line) for line in await operated.run("show", "--account", OWNER, "--json")]
    assert [each["id"] for each in shown[2:]] == sorted(
        [*operated.waiting, operated.others["SENT"], operated.others["FAILED"]]
    )
    assert await wrong_lanes(operated.database) == []
