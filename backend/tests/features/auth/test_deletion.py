"""A deleted account leaves numbers without names: nothing that it sent, and nothing that names its owner."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.core.security import hash_api_key, new_id
from app.storage import StoreUnavailable
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.uploads.test_uploads import uploaded
from tests.generations.jobs.queued import queue
from tests.harness import (
    PASSWORD,
    Account,
    Key,
    everything_stored,
    generate,
    looks,
    register,
    sign_up,
    until_waited_for,
)
from tests.standins.gemini import slow
from tests.test_cli import nanobanana_in_here

PROMPT = f"canary-{secrets.token_hex(12)}"


@dataclass(frozen=True)
class Deployment:
    """An application with a provider on a database and a store of its own, and its operator."""

    there: Painted
    database: asyncpg.Connection
    url: str
    folder: Path

    async def command(self, *arguments: str) -> str:
        """What `nanobanana` with these arguments prints, which succeeds."""
        done = await asyncio.to_thread(nanobanana_in_here, self.folder, *arguments, DATABASE_URL=self.url)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    async def delete(self, account: Account) -> str:
        return await self.command("accounts", "delete", account.email, "--yes")

    def images(self) -> list[str]:
        return [each.name for each in (self.folder / "pictures").rglob("*.png")]

    async def until_erased(self) -> None:
        for _ in looks():
            if await self.database.fetchval("select count(*) from erasures") == 0:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the erasure is not done")


@pytest.fixture
async def deployed(
    start: Start, new_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Deployment]:
    """It has deleted nothing yet, and sweeps all the time."""
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    database = await connect_for_writing(new_database_url)
    async with painted(start, database_url=new_database_url, data_dir=tmp_path) as there:
        yield Deployment(there, database, new_database_url, tmp_path)
    await database.close()


async def _make(deployed: Deployment, key: Key) -> str:
    made: str = (await generate(deployed.there.client, key, prompt=PROMPT)).json()["id"]
    return made


NUMBERS = "select sum(pictures)::int from usage"
GRANT = """
with entry as (
  insert into credit_entries (id, account_id, kind, amount, reference, charged_before)
  values ('ent_0', $1, 'grant', 5000000, 'grant:deletion', 0) returning account_id, amount
)
update balances b set credit = e.amount from entry e where b.account_id = e.account_id
"""
MONEY = (
    "select e.amount from credit_entries e join balances b using (account_id) where account_id = $1 and credit = amount"
)
INVITE = """
    insert into invitations (id, token_hash, email, uses_max, expires_at) values ('inv_0', sha256(''), $1, 1, now())
"""
ENDS = ("queued", "cancelled", "failed", "lost")
END = """
update generations set status = $2, lease_until = case when $2 = 'queued' then lease_until end,
  inputs = '[{"id": "upl_0", "sha256": "0"}]', expires_at = now() where id = $1
"""
ROWS = "select count(*), count(*) filter (where status = 'delivered'), count(deleted_at) from generations"


async def test_everything_that_names_the_owner_is_erased_and_every_number_stays(deployed: Deployment) -> None:
    there, other = deployed.there, await sign_up(deployed.there.client)
    test_key = await there.account.create_key(environment="test", name=f"name {PROMPT}")
    ids = [await _make(deployed, key) for key in (there.key, there.key, test_key)]
    await uploaded(there.client, test_key)
    kept = await _make(deployed, await other.create_key())
    assert await deployed.database.fetchval(NUMBERS) == 4
    jobs = await queue(deployed.database, there.key, len(ENDS), prompt=PROMPT)
    await deployed.database.executemany(END, list(zip(jobs, ENDS, strict=True)))
    await deployed.database.execute(INVITE, there.account.email)
    await deployed.database.execute(GRANT, there.account.account_id)
    unconfirmed = await deployed.command("accounts", "delete", there.account.email)
    assert "--yes" in unconfirmed
    assert (await generate(there.client, there.key)).status_code == 200
    assert there.account.account_id in await deployed.delete(there.account)
    await _check_erased(deployed, there.account, [there.key, test_key])
    assert deployed.images() == [f"{kept}.png"], "its upload is gone too"
    shown = [await there.client.get(f"/v1/images/{each}.png") for each in (*ids, kept)]
    assert [each.status_code for each in shown] == [404, 404, 404, 200]
    assert await deployed.database.fetchval(NUMBERS) == 5
    assert await deployed.database.fetchval(MONEY, there.account.account_id) == 5_000_000
    assert tuple(await deployed.database.fetchrow(ROWS) or ()) == (5 + len(jobs), 5, 4 + len(jobs))
    assert " 0 differences." in await deployed.command("usage", "reconcile")
    assert there.account.account_id in await deployed.command("usage", "report")
    again = await register(there.client, email=there.account.email)
    assert again.status_code == 201
    assert again.json()["id"] != there.account.id
    assert (await generate(there.client, await other.create_key())).status_code == 200


async def _check_erased(deployed: Deployment, account: Account, keys: list[Key]) -> None:
    client = deployed.there.client
    for key in keys:
        assert (await generate(client, key)).status_code == 401
    assert (await client.get("/v1/auth/me", headers=account.headers)).status_code == 401
    credentials = {"email": account.email, "password": PASSWORD}
    assert (await client.post("/v1/auth/login", json=credentials)).status_code == 401
    stored = (await everything_stored(deployed.database)).replace(PROMPT, "", 1)  # of the other account
    hashes = [hash_api_key(key.raw) for key in keys]
    for word in (
        account.email,
        PROMPT,
        account.id,
        *(key.raw[:16] for key in keys),
        *(str(h and h.hex()) for h in hashes),
    ):
        assert word not in stored, word


async def test_a_job_that_was_not_delivered_keeps_its_prompt_for_a_day(deployed: Deployment) -> None:
    ended = ("failed", "lost", "cancelled")
    old, young = [await queue(deployed.database, deployed.there.key, len(ended), prompt=PROMPT) for _ in range(2)]
    await deployed.database.executemany(END, list(zip([*old, *young], ended * 2, strict=True)))
    await deployed.database.execute(
        "update generations set expires_at = now() - $2::interval where id = any($1)", old, timedelta(days=1, seconds=1)
    )
    erased = "select count(*) filter (where prompt = '' and deleted_at is not null) from generations where id = any($1)"
    for _ in looks():
        if await deployed.database.fetchval(erased, old) == len(old):
            break
        await asyncio.sleep(0.01)
    assert await deployed.database.fetchval(erased, old) == len(old)
    assert await deployed.database.fetchval(erased, young) == 0


async def test_what_is_drawn_while_its_account_is_deleted_is_erased_when_it_has_ended(deployed: Deployment) -> None:
    there, gate = deployed.there, asyncio.Event()
    there.provider.faults.append(slow(gate))
    drawing = asyncio.create_task(generate(there.client, there.key, prompt=PROMPT))
    await there.asked()
    assert "have ended: 1.\n" in await deployed.delete(there.account)
    assert PROMPT not in await everything_stored(deployed.database)
    gate.set()
    answer = await drawing
    assert answer.status_code == 200, "what may have been paid is delivered, and counts"
    await deployed.database.execute("update erasures set lease_until = now()")
    await deployed.until_erased()  # by the sweeper of the application
    assert deployed.images() == []
    assert (await there.client.get(f"/v1/images/{answer.json()['id']}.png")).status_code == 404
    assert tuple(await deployed.database.fetchrow(ROWS) or ()) == (1, 1, 1)
    assert " 0 differences." in await deployed.command("usage", "reconcile")


async def test_what_is_asked_for_while_the_account_is_deleted_is_refused(deployed: Deployment) -> None:
    there = deployed.there
    async with deployed.database.transaction():
        await deployed.database.execute("select from api_keys for no key update")
        deleting = asyncio.create_task(deployed.delete(there.account))
        await until_waited_for(deployed.database)
        asked = asyncio.create_task(generate(there.client, there.key, prompt=PROMPT))
        await asyncio.wait([asked], timeout=0.1)  # it stands in the row's queue, or has been refused
    await deleting
    assert (await asked).status_code in {401, 503}
    assert await deployed.database.fetchval("select count(*) from generations") == 0


INSERT_KEY = """
    insert into api_keys (id, user_id, account_id, name, environment, prefix, key_hash)
    values ($1, $2, $3, 'new', 'live', 'nb_live_12345678', sha256(convert_to($1, 'UTF8')))
"""


async def test_a_key_that_is_made_while_the_account_is_deleted_waits_in_no_circle_and_is_revoked(
    deployed: Deployment,
) -> None:
    account, made = deployed.there.account, new_id("key")
    async with deployed.database.transaction():  # what `keys.create` does, in its order
        await deployed.database.execute("select from accounts where id = $1 for no key update", account.account_id)
        deleting = asyncio.create_task(deployed.delete(account))
        await until_waited_for(deployed.database)
        await deployed.database.execute(INSERT_KEY, made, account.id, account.account_id)
    await deleting
    key = await deployed.database.fetchrow("select revoked_at is null, name, user_id from api_keys where id = $1", made)
    assert tuple(key or ()) == (False, "", None)


async def test_a_batch_of_the_ledger_and_the_deletion_lock_keys_in_one_order(deployed: Deployment) -> None:
    account, lock = deployed.there.account, "select from api_keys where id = $1 for no key update"
    last, first = f"key_{'z' * 20}", f"key_{'0' * 20}"
    for made in (last, first):  # the order in which they lie in the table is not that of their ids
        await deployed.database.execute(INSERT_KEY, made, account.id, account.account_id)
    async with deployed.database.transaction():
        await deployed.database.execute(lock, first)
        deleting = asyncio.create_task(deployed.delete(account))
        await until_waited_for(deployed.database)
        await deployed.database.execute(lock, last)
    await deleting


async def test_an_erasure_that_the_store_stops_goes_on_by_itself(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _make(deployed, deployed.there.key)
    owner = deployed.there.account

    async def fail(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr("app.generations.erase.delete_with_thumbnails", fail)
        arguments = ("accounts", "delete", owner.email, "--yes")
        done = await asyncio.to_thread(nanobanana_in_here, deployed.folder, *arguments, DATABASE_URL=deployed.url)
        assert (done.returncode, owner.account_id in done.stderr) == (1, True)
    assert len(deployed.images()) == 1
    await deployed.database.execute("update erasures set lease_until = now()")
    await deployed.until_erased()
    assert (deployed.images(), PROMPT in await everything_stored(deployed.database)) == ([], False)
