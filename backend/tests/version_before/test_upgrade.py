"""After the migration everything that the version before gave out or stored is what it was."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx2
import pytest
from app.core.security import TokenKey, TokenSubject, time_prefix
from app.core.settings import Settings
from pydantic import SecretStr
from tests.harness import PASSWORD, Key, fresh_database, running
from tests.version_before.calls import record
from tests.version_before.history import connected, upgrade
from tests.version_before.rows import IMAGES, ONE_IMAGE, Person, Rows

SHOWN = ["delivered", "jpeg", "gemini", "of a revoked key", "delivered once", "three 0", "three 1", "three 2", "old"]
"""The live generations that their account sees."""


@pytest.fixture(scope="module")
def upgraded_url(server_url: str, version_before: tuple[str, Rows]) -> Iterator[str]:
    """A migrated copy."""
    with fresh_database(server_url, copy_of=version_before[0]) as url:
        upgrade(url)
        yield url


@pytest.fixture(scope="module")
async def upgraded(upgraded_url: str, settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """The application on it."""
    changes = {"database_url": SecretStr(upgraded_url), "public_url": "http://pictures.test"}
    async with running(settings.model_copy(update=changes)) as client:
        yield client


@pytest.fixture
async def database(upgraded_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to it."""
    async with connected(upgraded_url) as database:
        yield database


@pytest.fixture
def live(rows: Rows) -> Key:
    """The key that has been used most."""
    return rows.ada.keys["live"]


def _login_token(settings: Settings, person: Person) -> dict[str, str]:
    key = TokenKey.derive(settings.signing_secret)
    subject = TokenSubject(person.id, person.token_generation)
    return {"Authorization": f"Bearer {key.issue(subject, now=time.time(), lifetime_seconds=60)}"}


async def _repeat(
    client: httpx2.AsyncClient, key: Key, request: str, *, path: str = ONE_IMAGE, **more: object
) -> httpx2.Response:
    body = {"prompt": "A cute banana", "size": "64x64", **more}
    headers = {**key.headers, "Idempotency-Key": request.replace(" ", "-")}
    return await client.post(path, json=body, headers=headers)


async def test_login_tokens_and_passwords_are_good_unless_the_account_is_disabled(
    upgraded: httpx2.AsyncClient, settings: Settings, rows: Rows
) -> None:
    for person, token_status, password_status in ((rows.ada, 200, 200), (rows.bob, 401, 401)):
        me = await upgraded.get("/v1/auth/me", headers=_login_token(settings, person))
        assert me.status_code == token_status
        log_in = {"email": person.email, "password": PASSWORD}
        assert (await upgraded.post("/v1/auth/login", json=log_in)).status_code == password_status


async def test_sessions_of_browsers_go_on(upgraded: httpx2.AsyncClient, rows: Rows) -> None:
    for person, status in ((rows.ada, 200), (rows.bob, 303)):
        answer = await upgraded.get("/keys", headers={"Cookie": f"nanobanana={person.session}"}, follow_redirects=False)
        assert answer.status_code == status


async def test_keys_are_good_unless_they_were_revoked_or_suspended(upgraded: httpx2.AsyncClient, rows: Rows) -> None:
    for person, name, status in (
        (rows.ada, "live", 200),
        (rows.ada, "test", 200),
        (rows.ada, "limited", 200),
        (rows.ada, "revoked", 401),
        (rows.bob, "live", 401),
    ):
        answer = await upgraded.get("/v1/generations", headers=person.keys[name].headers)
        assert answer.status_code == status, name


async def test_lists_and_images_are_what_they_were(upgraded: httpx2.AsyncClient, rows: Rows, live: Key) -> None:
    listed = (await upgraded.get("/v1/generations", headers=live.headers, params={"limit": 100})).json()
    expected = sorted((rows.generations[name] for name in SHOWN), reverse=True)
    assert [each["id"] for each in listed if each["id"] in rows.generations.values()] == expected
    of_test = (await upgraded.get("/v1/generations", headers=rows.ada.keys["test"].headers)).json()
    assert [each["id"] for each in of_test] == [rows.generations["test"]]
    for name, status in (("delivered", 200), ("old", 200), ("deleted", 404), ("failed", 404), ("processing", 404)):
        assert (await upgraded.get(f"/v1/images/{rows.generations[name]}.png")).status_code == status, name


async def test_usage_is_what_it_was(
    upgraded: httpx2.AsyncClient, settings: Settings, rows: Rows, live: Key, database: asyncpg.Connection
) -> None:
    old_day = datetime.now(UTC).date() - timedelta(days=40)
    parameters = {"from": str(old_day), "to": str(old_day), "key_id": live.id}
    answer = await upgraded.get("/v1/usage", headers=_login_token(settings, rows.ada), params=parameters)
    assert [(each["date"], each["images"]) for each in answer.json()] == [(str(old_day), 1)]
    revoked = "select sum(pictures), min(model) from usage where key_id = $1"
    assert tuple(await database.fetchrow(revoked, rows.ada.keys["revoked"].id) or ()) == (1, "nano-banana")


async def test_an_idempotency_key_gives_the_first_answer_again(
    upgraded: httpx2.AsyncClient, rows: Rows, live: Key, database: asyncpg.Connection
) -> None:
    count = "select sum(pictures) from usage"
    before = await database.fetchval(count)
    once = await _repeat(upgraded, live, "delivered once")
    three = await _repeat(upgraded, live, "three 0", path=IMAGES, n=3, response_format="url")
    for answer in (once, three):
        assert answer.status_code == 200, answer.text
        assert answer.headers["idempotent-replayed"] == "true"
    assert once.json()["id"] == rows.generations["delivered once"]
    urls = [f"http://pictures.test/v1/images/{rows.generations[f'three {number}']}.png" for number in range(3)]
    assert [each["url"] for each in three.json()["data"]] == urls
    assert (await _repeat(upgraded, live, "delivered once", prompt="Another")).status_code == 422
    assert await database.fetchval(count) == before


async def test_what_is_being_drawn_is_left_alone_until_its_lease_is_over(
    upgraded: httpx2.AsyncClient, rows: Rows, live: Key, database: asyncpg.Connection
) -> None:
    assert (await _repeat(upgraded, live, "in flight")).status_code == 409
    lease = "select lease_until - now() from generations where id = $1"
    for name, at_least, at_most in (("in flight", 0, 2), ("processing", 50, 60)):
        left = await database.fetchval(lease, rows.generations[name])
        assert timedelta(minutes=at_least) < left <= timedelta(minutes=at_most), name
    taken_over = await _repeat(upgraded, live, "lapsed")
    assert taken_over.status_code == 200, taken_over.text
    assert taken_over.json()["id"] not in rows.generations.values()
    lost = "select status from generations where id = $1"
    assert await database.fetchval(lost, rows.generations["lapsed"]) == "lost"


async def test_every_user_key_and_generation_has_its_account(database: asyncpg.Connection, rows: Rows) -> None:
    limits = "select is_active, generate_limit, generate_limit_per_key, generate_concurrency_per_key"
    for person in (rows.ada, rows.bob):
        of_user = await database.fetchrow(f"{limits}, created_at from users where id = $1", person.id)
        assert of_user == await database.fetchrow(
            f"{limits}, created_at from accounts where id = $1", person.account_id
        )
    owners = "select account_id, revision from api_keys where id = any($1)"
    of_ada = await database.fetch(owners, [key.id for key in rows.ada.keys.values()])
    assert {tuple(row) for row in of_ada} == {(rows.ada.account_id, 0)}
    stored = "select account_id, environment, request_id from generations where id = $1"
    for name, environment in (("delivered", "live"), ("test", "test"), ("lost", "live")):
        made = rows.generations[name]
        found = await database.fetchrow(stored, made)
        assert tuple(found or ()) == (rows.ada.account_id, environment, made)


async def test_all_rows_so_far_are_in_the_first_partition(database: asyncpg.Connection, rows: Rows) -> None:
    spread = "select distinct tableoid::regclass::text from generations where id = any($1)"
    [[partition]] = await database.fetch(spread, list(rows.generations.values()))
    assert partition.startswith("generations_before_")


_FIRST_BOUND = """
select substring(pg_get_expr(c.relpartbound, c.oid) from $$TO [(]'(.*)'[)]$$) from pg_class c
where c.relname like 'generations_before_%' and c.relispartition
"""


@pytest.mark.parametrize("days_ahead", [0, 100])
async def test_the_first_partition_ends_a_week_after_the_migration_and_behind_every_id(
    old_database_url: str, rows: Rows, days_ahead: int
) -> None:
    """A killed migration leaves the bound behind, and new ids must stay below it until it is run again."""
    now = datetime.now(UTC)
    async with connected(old_database_url) as database:
        await record(database, rows.ada.keys["live"].id, at=(now + timedelta(days=days_ahead)).timestamp())
        await asyncio.to_thread(upgrade, old_database_url)
        bound = await database.fetchval(_FIRST_BOUND)
        assert bound > time_prefix("gen", now + timedelta(days=max(7, days_ahead)))
        assert bound <= time_prefix("gen", now + timedelta(days=max(7, days_ahead) + 32))
        assert await database.fetchval("select count(*) from generations_default") == 0


async def test_an_accounts_list_is_read_from_the_end_of_one_index_of_each_partition(
    database: asyncpg.Connection,
) -> None:
    query = """
        explain select * from generations where account_id = 'acc_a' and environment = 'live' order by id desc limit 20
    """
    await database.execute("set enable_seqscan = off")  # the tables are small
    plan = [line for (line,) in await database.fetch(query)]
    scans = [line for line in plan if "Scan" in line]
    partitions = "select count(*) from pg_inherits where inhparent = 'generations'::regclass"
    assert len(scans) == await database.fetchval(partitions)
    assert all("Index Scan Backward using generations_" in line and "account" in line for line in scans)
    assert not any("Sort  (" in line for line in plan)


def test_a_second_upgrade_finds_nothing_to_do(upgraded_url: str) -> None:
    async def version() -> str:
        async with connected(upgraded_url) as database:
            return str(await database.fetchval("select (xmin, version_num) from alembic_version"))

    before = asyncio.run(version())
    upgrade(upgraded_url)
    assert asyncio.run(version()) == before
