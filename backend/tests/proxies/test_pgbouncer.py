"""Behind a real PgBouncer: its session mode works, and its transaction mode beside a URL without it."""

import asyncio
from pathlib import Path

import pytest
from app.checks import check_database
from app.core.db import connect_for_writing, create_engine
from app.core.settings import ConfigurationError, Settings
from pydantic import SecretStr
from sqlalchemy import text
from tests.conftest import Start
from tests.harness import generate, on_server, sign_up
from tests.pool_use import PoolUse
from tests.proxies.pgbouncer import PROGRAM, pgbouncer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="There is no PgBouncer here: make proxies installs it")

SETTINGS = "select current_setting('synchronous_commit'), current_setting('statement_timeout')"


@pytest.fixture
def lax_url(new_database_url: str) -> str:
    """A migrated database that by its own settings may lose commits, and never ends a statement."""
    name = new_database_url.rpartition("/")[2].partition("?")[0]
    for setting in ("synchronous_commit = off", "statement_timeout = 0"):
        on_server(new_database_url, f"alter database {name} set {setting}")
    return new_database_url


async def check(settings: Settings, **urls: str) -> str:
    """What `check` says of the database."""
    changed = settings.model_copy(update={name: SecretStr(url) for name, url in urls.items()})
    return await asyncio.to_thread(check_database, changed)


async def use(start: Start, **urls: str) -> None:
    """Does what needs the pool and the ledger, much of it at once."""
    client = await start(**urls)
    account = await sign_up(client)
    key = await account.create_key()
    creating = (account.create_key() for _ in range(20))
    generating = (generate(client, key) for _ in range(20))
    await asyncio.gather(*creating)
    assert {answer.status_code for answer in await asyncio.gather(*generating)} == {200}
    reading = (client.get("/v1/keys", headers=account.headers) for _ in range(20))
    assert {answer.status_code for answer in await asyncio.gather(*reading)} == {200}
    await account.revoke_key(key)
    assert (await generate(client, key)).status_code == 401
    assert (await client.get("/ready")).status_code == 200


async def test_in_session_mode_all_works_and_the_ledger_has_its_settings(
    start: Start, settings: Settings, lax_url: str
) -> None:
    async with pgbouncer(lax_url, mode="session", pool_size=60) as url:
        assert await check(settings, database_url=url) == "ok"
        await use(start, database_url=url)
        writing = await connect_for_writing(url)
        assert [*(await writing.fetchrow(SETTINGS) or ())] == ["on", "3s"]
        await writing.close()


async def test_in_transaction_mode_with_a_direct_url_all_works_and_each_transaction_has_its_settings(
    start: Start, settings: Settings, lax_url: str, pool_use: PoolUse
) -> None:
    async with pgbouncer(lax_url, mode="transaction", pool_size=3, round_robin=True) as url:
        assert await check(settings, database_url=url, database_direct_url=lax_url) == "ok"
        await use(start, database_url=url, database_direct_url=lax_url)
        engine = create_engine(url, pool_size=5, is_shared=True)
        assert pool_use.take_faults() == []
        async with engine.connect() as first, engine.connect() as second:
            pool_use.take_faults()  # of this test alone
            for connection in (first, second):
                assert [*(await connection.execute(text(SETTINGS))).one()] == ["on", "4s"]
        await engine.dispose()


@pytest.mark.parametrize(("pool_size", "round_robin"), [(1, False), (5, False), (5, True)])
async def test_transaction_mode_alone_is_refused(
    settings: Settings, database_url: str, backend: Path, pool_size: int, *, round_robin: bool
) -> None:
    documentation = (backend.parent / "docs" / "operations.md").read_text()
    async with pgbouncer(database_url, mode="transaction", pool_size=pool_size, round_robin=round_robin) as url:
        with pytest.raises(ConfigurationError) as raised:
            await check(settings, database_url=url)
        assert f"| PgBouncer in transaction mode alone | {raised.value} |" in documentation
        with pytest.raises(ConfigurationError, match="The database of DATABASE_DIRECT_URL is behind a pooler"):
            await check(settings, database_url=url, database_direct_url=url)
