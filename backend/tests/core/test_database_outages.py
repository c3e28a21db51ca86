"""A database that is not there, or not what it was, is a 503 until it is back; no restart is needed."""

import asyncio
import json
from io import StringIO

import asyncpg
import httpx2
import pytest
from app.core.logs import write_pending_lines
from pydantic import SecretStr
from structlog.types import EventDict
from tests.conftest import Start
from tests.core.database_calls import ask_everything, causes, create_key
from tests.core.database_ways import Way, refusing
from tests.harness import Account, Key, generate, on_server, sign_up
from tests.problems import check_problem


async def test_connections_that_died_in_the_pool_are_replaced_without_an_error(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    everyone = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'nanobanana'"
    for _ in range(3):
        await database.execute(f"{everyone} and datname = current_database()")
        assert (await create_key(client, account)).status_code == 201
        assert (await generate(client, key)).status_code == 200


@pytest.fixture(autouse=True)
def looks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/ready` does not repeat what it found before."""
    monkeypatch.setattr("app.database_check.KNOWN_SECONDS", 0)


@pytest.mark.parametrize("sqlstate", ["57P03", "53300", "53400", "53100", "57P01", "08004", "28P01", "3D000"])
async def test_a_database_that_refuses_every_login_is_a_503(
    start: Start, account: Account, key: Key, lines: list[EventDict], sqlstate: str
) -> None:
    async with refusing(sqlstate) as url:
        client = await start(database_url=SecretStr(url))
        for answer in await ask_everything(client, account, key):
            check_problem(answer, 503, "unavailable")
        assert (await client.get("/health")).status_code == 200
    assert sqlstate in causes(lines)


async def test_a_database_that_is_down_is_a_503_until_it_starts_and_again_when_it_stops(
    start: Start, account: Account, key: Key, database_url: str, lines: list[EventDict]
) -> None:
    way = Way(database_url)
    client = await start(database_url=SecretStr(way.url))
    for _ in range(2):
        for answer in await ask_everything(client, account, key):
            check_problem(answer, 503, "unavailable")
        async with way.open():
            statuses = [answer.status_code for answer in await ask_everything(client, account, key)]
            assert statuses == [200, 200, 201, 200, 404, 401, 201, 200]
    assert all(isinstance(cause, type) for cause in causes(lines))


async def test_a_schema_that_is_taken_away_under_a_server_is_a_503(
    start: Start, account: Account, key: Key, new_database_url: str
) -> None:
    client = await start(database_url=SecretStr(new_database_url))
    await asyncio.to_thread(on_server, new_database_url, "drop schema public cascade")
    for answer in await ask_everything(client, account, key):
        check_problem(answer, 503, "unavailable")


@pytest.mark.parametrize(
    ("taken", "returned"),
    [
        ("alter table usage rename to used", "alter table used rename to usage"),
        ("alter table usage rename pictures to images", "alter table usage rename images to pictures"),
    ],
    ids=["table", "column"],
)
async def test_while_a_part_of_the_schema_is_taken_away_all_who_need_it_are_refused(
    start: Start, new_database_url: str, taken: str, returned: str
) -> None:
    client = await start(database_url=SecretStr(new_database_url))
    account = await sign_up(client)
    key = await account.create_key()
    for change, status in (("select 1", 200), (taken, 503), (returned, 200)):
        await asyncio.to_thread(on_server, new_database_url, change)
        answers = [await generate(client, key), await client.get("/v1/usage", headers=account.headers)]
        assert [answer.status_code for answer in answers] == [status] * 2
        if status == 503:
            for answer in answers:
                check_problem(answer, 503, "unavailable")


async def test_an_outage_is_one_line_with_a_stack_and_one_with_the_sum(
    start: Start, account: Account, log: StringIO
) -> None:
    async with refusing("57P03") as url:
        client = await start(database_url=SecretStr(url))
        for _ in range(30):
            check_problem(await client.get("/v1/auth/me", headers=account.headers), 503, "unavailable")
    write_pending_lines()  # as at the end of a process
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    first, total = [line for line in lines if line["event"] == "request_failed"]
    assert first["exception"]["sqlstate"] == total["exception"]["sqlstate"] == "57P03"
    assert ("frames" in first["exception"], "frames" in total["exception"]) == (True, False)
    assert (first["code"], total["code"], total["repeated"]) == ("unavailable", "unavailable", 29)
    assert len([line for line in lines if line.get("code") == "unavailable" and line["event"] == "request"]) == 30


async def test_a_missing_socket_folder_is_a_503(
    start: Start, account: Account, key: Key, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("socket") / "missing"
    client = await start(database_url=SecretStr(f"postgresql+asyncpg://nobody@/nothing?host={folder}"))
    for answer in await ask_everything(client, account, key):
        check_problem(answer, 503, "unavailable")
