"""Health and readiness, answered without waiting for a database that hangs."""

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import asyncpg
import httpx2
import pytest
from app import __version__, database_check, migrations
from app.core.database_connection import SettingsNotKeptError
from app.core.db import connect_for_writing
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.usage.recorded import locked
from tests.harness import (
    BEYOND_PATIENCE_SECONDS,
    Account,
    as_seen,
    fresh_database,
    generate,
    looks,
    on_server,
    until_waited_for,
    without_request_id,
)
from tests.standins import gemini
from tests.standins.listening import listening


@pytest.fixture(autouse=True)
def looks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database is looked at anew by each who asks."""
    monkeypatch.setattr(database_check, "KNOWN_SECONDS", 0)


async def _assert_unready(client: httpx2.AsyncClient, detail: str) -> None:
    for _ in looks():
        answer = await client.get("/ready")
        problem = without_request_id(answer)
        if problem.get("detail", "").startswith(detail):  # not at once, on a machine that stands still for a second
            break
    else:
        raise AssertionError(problem)
    assert (answer.status_code, problem["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    head = await client.head("/ready")
    assert (head.status_code, head.content) == (503, b"")
    assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"), [("/health", {"status": "ok"}), ("/ready", {"status": "ready", "degraded": []})]
)
async def test_a_process_that_can_serve_says_so(client: httpx2.AsyncClient, path: str, body: dict[str, str]) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (200, body)
    assert answer.headers["cache-control"] == "no-store"
    status, headers, content = as_seen(await client.head(path))
    assert (status, headers, content) == (200, as_seen(answer)[1], b"")


async def test_health_names_the_version(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/health")).headers["x-nanobanana-version"] == __version__
    assert (await client.head("/health")).headers["x-nanobanana-version"] == __version__
    assert "x-nanobanana-version" not in (await client.get("/v1/models")).headers


async def test_security_txt_names_the_operators_contact_and_never_expires_within_a_year(
    start: Start, client: httpx2.AsyncClient
) -> None:
    path, contact = "/.well-known/security.txt", "mailto:security@example.com"
    for method in ("GET", "HEAD"):
        assert (await client.request(method, path)).status_code == 404
    answer = await (await start(security_contact=contact)).get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    fields = dict(line.split(": ", 1) for line in answer.text.splitlines())
    left = datetime.fromisoformat(fields.pop("Expires")) - datetime.now(UTC)
    assert timedelta(days=100) < left < timedelta(days=365)
    canonical = f"https://pictures.test{path}"
    assert fields == {"Contact": contact, "Preferred-Languages": "en", "Canonical": canonical}


async def test_security_txt_has_no_address_of_its_own_without_https(start: Start) -> None:
    there = await start(security_contact="https://example.com/security", public_url="http://pictures.test")
    assert "Canonical" not in (await there.get("/.well-known/security.txt")).text


async def test_health_ignores_credentials(client: httpx2.AsyncClient) -> None:
    for path in ("/health", "/ready"):
        assert (await client.get(path, headers={"Authorization": "Bearer nothing"})).status_code == 200


async def test_a_database_that_cannot_be_reached_is_reported(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # no process listens: connections are refused
        url = f"postgresql://nobody:{secrets.token_hex(8)}@127.0.0.1:{taken.getsockname()[1]}/nothing"
        client = await start(database_url=url)
        await _assert_unready(client, "The database cannot be reached")


async def test_a_database_that_does_not_exist_is_reported(start: Start, database_url: str) -> None:
    url = database_url.replace("nanobanana_test_", "nanobanana_missing_")
    assert url != database_url
    await _assert_unready(await start(database_url=url), "The database cannot be reached")


async def test_a_schema_that_is_behind_is_reported(start: Start, empty_database: str) -> None:
    client = await start(database_url=empty_database)
    await _assert_unready(client, "The database's schema is behind this program")


async def test_a_database_that_can_only_be_read_is_reported(start: Start, new_database_url: str) -> None:
    name = new_database_url.rpartition("/")[2].partition("?")[0]
    read_only = f"alter database {name} set default_transaction_read_only = on"
    await asyncio.to_thread(on_server, new_database_url, read_only)
    await _assert_unready(await start(database_url=new_database_url), "The database can only be read")


async def test_a_database_in_another_encoding_is_reported(start: Start, server_url: str) -> None:
    name = f"nanobanana_test_latin_{secrets.token_hex(6)}"
    layout = "encoding 'LATIN1' locale 'C' template template0"
    await asyncio.to_thread(on_server, server_url, f"create database {name} {layout}")
    url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
    await _assert_unready(await start(database_url=url), "The database's encoding is LATIN1")
    await asyncio.to_thread(on_server, server_url, f"drop database {name} with (force)")


async def test_a_migration_makes_a_running_process_ready_and_a_newer_schema_keeps_it_so(
    start: Start, empty_database: str
) -> None:
    client = await start(database_url=empty_database)
    assert (await client.get("/ready")).status_code == 503
    await asyncio.to_thread(migrations.upgrade, empty_database)
    assert (await client.get("/ready")).status_code == 200
    newer = "update alembic_version set version_num = 'from_the_future'"
    await asyncio.to_thread(on_server, empty_database, newer)
    assert (await client.get("/ready")).status_code == 200


async def test_a_process_is_ready_again_when_its_connections_were_cut(
    start: Start, database: asyncpg.Connection, empty_database: str
) -> None:
    await asyncio.to_thread(migrations.upgrade, empty_database)
    client = await start(database_url=empty_database)
    for _ in looks():  # the disk may still be busy with the new database
        if (await client.get("/ready")).status_code == 200:
            break
    name = empty_database.rpartition("/")[2].partition("?")[0]
    cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1"
    assert await database.fetchval(cut, name) >= 1
    assert (await client.get("/ready")).status_code == 200


async def test_a_database_that_hangs_is_reported_before_the_driver_times_out(start: Start, hanging: str) -> None:
    client = await start(database_url=hanging)
    # The driver's own timeout would be reported as a database that cannot be reached.
    await _assert_unready(client, "The database does not answer")
    answers = await asyncio.gather(*(client.get(path) for path in ["/ready", "/health"] * 20))
    assert [answer.status_code for answer in answers] == [503, 200] * 20


class Looks:
    """The looks at the database for `/ready`, which end once they may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end = 0, asyncio.Event()

        async def unfit_sentence(_connection: AsyncConnection) -> None:
            self.begun += 1
            await self.may_end.wait()

        monkeypatch.setattr(database_check, "unfit_sentence", unfit_sentence)


async def test_the_database_is_looked_at_once_for_all_who_ask_at_a_time_and_shortly_after(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, seen = await start(), Looks(monkeypatch)
    monkeypatch.setattr(database_check, "KNOWN_SECONDS", BEYOND_PATIENCE_SECONDS)
    asking = [asyncio.create_task(client.get("/ready")) for _ in range(50)]
    for _ in looks():
        if seen.begun:
            break
        await asyncio.sleep(0.01)
    assert [(await client.get("/health")).status_code for _ in range(10)] == [200] * 10
    assert not any(each.done() for each in asking)
    seen.may_end.set()
    assert {(await each).status_code for each in asking} == {200}
    assert [(await client.get("/ready")).status_code for _ in range(10)] == [200] * 10
    assert seen.begun == 1


async def test_the_database_is_looked_at_anew_once_what_was_found_is_old(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, seen = await start(), Looks(monkeypatch)
    seen.may_end.set()
    assert [(await client.get("/ready")).status_code for _ in range(3)] == [200] * 3
    assert seen.begun == 3


async def test_what_is_found_too_late_is_said_to_who_asks_next(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client, seen = await start(), Looks(monkeypatch)
    monkeypatch.setattr(database_check, "DATABASE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(database_check, "KNOWN_SECONDS", BEYOND_PATIENCE_SECONDS)
    for _ in range(3):
        await _assert_unready(client, "The database does not answer")
    seen.may_end.set()
    for _ in looks():
        if (await client.get("/ready")).status_code == 200:
            break
    assert seen.begun == 1


async def test_a_process_whose_connections_are_all_in_use_is_ready(
    start: Start, account: Account, database: asyncpg.Connection
) -> None:
    key, client = await account.create_key(), await start(database_pool_size=1)
    async with locked(database, key):
        revoking = asyncio.create_task(client.delete(f"/v1/keys/{key.id}", headers=account.headers))
        await until_waited_for(database)
        assert (await client.get("/ready")).status_code == 200
        assert not revoking.done(), "it holds the only connection"
    assert (await revoking).status_code == 204


async def test_a_pooler_in_transaction_mode_is_reported_until_the_ledger_has_a_session_of_its_own(
    start: Start, database_url: str, externals: dict[str, Any], account: Account
) -> None:
    behind_a_pooler = [True]

    async def connect() -> asyncpg.Connection:
        if behind_a_pooler:
            raise SettingsNotKeptError
        return await connect_for_writing(database_url)

    externals["connect"] = connect
    client, key = await start(), await account.create_key()
    await _assert_unready(client, "The database is behind a pooler in transaction mode; set DATABASE_DIRECT_URL")
    behind_a_pooler.clear()
    assert (await generate(client, key)).status_code == 200
    assert (await client.get("/ready")).status_code == 200


async def test_a_redis_that_is_away_makes_no_process_useless(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # no process listens: connections are refused
        client = await start(redis_url=SecretStr(f"redis://127.0.0.1:{taken.getsockname()[1]}"))
        answer = await client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "degraded": ["redis"]})


async def test_a_provider_that_refuses_its_key_makes_no_process_useless_and_is_logged_once(
    start: Start, log: StringIO
) -> None:
    async with painted(start) as there:
        there.provider.faults.extend([gemini.failed(403, "PERMISSION_DENIED")] * 2)
        assert [(await generate(there.client, there.key)).status_code for _ in range(2)] == [503] * 2
        answer = await there.client.get("/ready")
        assert (answer.status_code, answer.json()["degraded"]) == (200, ["provider"])
        assert (await generate(there.client, there.key)).status_code == 200
        assert (await there.client.get("/ready")).json()["degraded"] == []
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    [unusable] = [line for line in lines if line["event"] == "provider_unusable"]
    assert (unusable["route"], unusable["status"], unusable["level"]) == ("nano-banana", 403, "error")
    assert [line["route"] for line in lines if line["event"] == "provider_usable"] == ["nano-banana"]


@pytest.fixture
def empty_database(server_url: str) -> Iterator[str]:
    """An empty database for one test."""
    with fresh_database(server_url) as url:
        yield url


@pytest.fixture
async def hanging() -> AsyncIterator[str]:
    """The URL of a database server that accepts connections and never sends a byte."""

    async def say_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(say_nothing) as port:
        yield f"postgresql://nobody:{secrets.token_hex(8)}@127.0.0.1:{port}/nothing"
