"""Whatever stops a key cancels what waits under it, in the same transaction; nothing of it is drawn afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
from app.generations.jobs.worker import Worker
from app.generations.ledger import Ledger
from tests.generations.jobs.lanes import take, wrong_lanes
from tests.generations.jobs.queued import queue
from tests.harness import Account, looks
from tests.test_cli import nanobanana_in_here

JOBS = 1000


class Stop(NamedTuple):
    """A way in which a key is stopped: the command, or none for HTTP; the table whose row says so; the code in rows."""

    command: tuple[str, ...]
    table: str
    code: str


STOPS = [
    Stop((), "api_keys", "key_revoked"),
    Stop(("keys", "revoke", "{key}", "--yes"), "api_keys", "key_revoked"),
    Stop(("accounts", "disable", "{email}"), "accounts", "account_disabled"),
    Stop(("accounts", "delete", "{email}", "--yes"), "accounts", "account_disabled"),
]

Command = Callable[..., Awaitable[None]]

_ENDED = """
select status, error, lease_until is null, count(*), count(distinct xmin::text), min(xmin::text) from generations
where id = any($1) group by 1, 2, 3
"""
_STOPPED = "select xmin::text from {table} where id = $1"


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command, which succeeds, and draws no jobs itself. It erases nothing afterwards."""
    monkeypatch.setattr(Worker, "run", None)

    async def leave(*_: object) -> tuple[None, int]:
        return None, 0

    monkeypatch.setattr("app.generations.erase._erase_batch", leave)

    async def run(*arguments: str) -> None:
        done = await asyncio.to_thread(nanobanana_in_here, tmp_path, *arguments, DATABASE_URL=database_url)
        assert done.returncode == 0, done.stderr

    return run


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: " ".join(stop.command[:2]) or "HTTP")
async def test_what_waits_under_a_key_is_cancelled_with_it(
    stop: Stop, account: Account, database: asyncpg.Connection, ledger: Ledger, command: Command
) -> None:
    key, other = [await account.create_key() for _ in range(2)]
    ids = [*await queue(database, key, JOBS // 2), *await queue(database, key, JOBS // 2, job_class="batch")]
    untouched = await queue(database, other, 1)
    if stop.command:
        await command(*(each.format(key=key.id, email=account.email) for each in stop.command))
    else:
        await account.revoke_key(key)
    [row] = await database.fetch(_ENDED, ids)
    stopped = key.id if stop.table == "api_keys" else account.account_id
    transaction = await database.fetchval(_STOPPED.format(table=stop.table), stopped)
    assert tuple(row) == ("cancelled", stop.code, True, JOBS, 1, transaction)
    assert await wrong_lanes(database) == []
    jobs = await take(ledger)
    taken = {each for job in jobs for each in job.ids} & {*ids, *untouched}
    assert taken == (set(untouched) if stop.table == "api_keys" else set())
    for job in jobs:  # nothing is left to other tests
        await ledger.query("cancel_job", request_id=job.id, error="cancelled")


async def test_callers_who_wait_hear_of_it(account: Account, database: asyncpg.Connection) -> None:
    rung = set[str]()
    key = await account.create_key()
    ids = await queue(database, key, 2)
    await database.add_listener("nanobanana", lambda *heard: rung.update(str(heard[3]).split()))
    await account.revoke_key(key)
    for _ in looks():
        if rung >= set(ids):
            break
        await asyncio.sleep(0.01)
    assert rung >= set(ids)
