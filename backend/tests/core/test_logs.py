"""Logs: one JSON object a line, with the id of its request and no value that a client sent."""

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Iterator
from io import StringIO
from typing import Any

import asyncpg
import httpx2
import pytest
import structlog
from app.core.logs import configure_logging, logger
from app.core.settings import Settings
from tests.harness import Account, generate, looks, new_email, running, sign_up
from tests.raw_http import connected, head, read_answer, send_raw
from tests.web.held_logins import LOGIN, HeldLogins

CLIENTS = ("httpx2", "httpcore2")  # the tests' own client, whose lines are not the program's
QUIET = ("uvicorn", "sqlalchemy", "alembic", "asyncio", "PIL")  # libraries whose lines quote values
Line = dict[str, Any]


@pytest.fixture
def log() -> Iterator[StringIO]:
    """The program's output at DEBUG, the lowest level."""
    handlers, structure = logging.root.handlers[:], structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in (None, *CLIENTS, *QUIET)}
    configure_logging("DEBUG")
    [handler] = logging.root.handlers
    assert isinstance(handler, logging.StreamHandler)
    written = StringIO()
    handler.setStream(written)
    for name in CLIENTS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    yield written
    for each, level in levels.items():
        logging.getLogger(each).setLevel(level)
    logging.root.handlers[:] = handlers
    structlog.configure(**structure)


@pytest.fixture
def canaries() -> dict[str, str]:
    """Unique secrets that must not appear in any line."""
    return {
        name: f"{name}{secrets.token_hex(8)}" for name in ("email", "password", "prompt", "name", "header", "query")
    }


def lines_of(log: StringIO) -> list[Line]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def without_caller(log: StringIO) -> list[Line]:
    """The lines without the fields that name the caller."""
    return [{name: line[name] for name in line if name not in {"account", "key"}} for line in lines_of(log)]


def about(log: StringIO, answer: httpx2.Response) -> list[Line]:
    """The lines about one request, once the last of them has been written."""
    return [line for line in lines_of(log) if line.get("request_id") == answer.headers["x-request-id"]]


async def settle(client: httpx2.AsyncClient) -> None:
    """Returns once the last lines of earlier requests are written: they come before the answer to a later one."""
    await client.get("/health")


async def test_a_request_is_logged_as_one_line_with_its_id_route_and_status(
    client: httpx2.AsyncClient, log: StringIO
) -> None:
    answer = await client.get("/v1/keys")
    await settle(client)
    [line] = about(log, answer)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    assert list(line)[:3] == ["timestamp", "level", "event"]
    told = {name: line[name] for name in ("level", "event", "logger", "method", "route", "status")}
    assert told == {
        "level": "info",
        "event": "request",
        "logger": "nanobanana",
        "method": "GET",
        "route": "/v1/keys",
        "status": 401,
    }
    assert line["ms"] >= 0


async def test_refusals_by_overload_are_logged_in_one_line_and_not_one_for_each(
    settings: Settings, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldLogins(monkeypatch)

    def told() -> list[int]:
        return [line["refused"] for line in lines_of(log) if line["event"] == "overloaded"]

    busy = Settings(**{**settings.model_dump(), "requests_max": 1, "trusted_proxies": "127.0.0.0/8"})
    async with running(busy) as client, connected(client) as (reader, writer):
        writer.write(LOGIN)
        await held.begun.acquire()
        refused = [await client.get("/v1/keys") for _ in range(5)]
        for _ in looks():
            if sum(told()) == len(refused):
                break
            await asyncio.sleep(0.05)
        assert sum(told()) == len(refused) > len(told())
        refused.append(await client.get("/v1/keys"))
        held.let_go.set()
        assert (await read_answer(reader)).status_code == 401
    assert sum(told()) == len(refused), "and those of the last second when it ends"
    assert [about(log, answer) for answer in refused] == [[]] * len(refused)


async def test_a_request_line_names_the_route_and_never_the_path(
    client: httpx2.AsyncClient, account: Account, log: StringIO
) -> None:
    key = await account.create_key()
    picture = (await generate(client, key)).json()["id"]
    for answer, route in [
        (await client.get(f"/v1/images/{picture}.png"), "/v1/images/{generation_id}.{extension}"),
        (await client.head(f"/v1/images/{picture}.png"), "/v1/images/{generation_id}.{extension}"),
        (await client.put(f"/v1/images/{picture}.png"), "/v1/images/{generation_id}.{extension}"),
        (await client.delete(f"/v1/keys/{key.id}", headers=account.headers), "/v1/keys/{key_id}"),
        (await client.get(f"/v1/images/{picture}.jpeg"), "/v1/images/{generation_id}.{extension}"),
        (await client.get(f"/v1/images/{picture}"), "unmatched"),
        (await client.get(f"/{picture}"), "unmatched"),
    ]:
        await settle(client)
        assert [line["route"] for line in about(log, answer)] == [route]
    assert picture not in log.getvalue()
    assert key.id not in str(without_caller(log))


async def test_an_unknown_method_is_logged_as_other(client: httpx2.AsyncClient, log: StringIO) -> None:
    for method in ("TRACE", "PROPFIND", "GET"):
        answer = await send_raw(client, head(method, "/health"))
        await settle(client)
        assert [line["method"] for line in about(log, answer)] == [method if method == "GET" else "other"]


async def test_an_exception_is_logged_with_its_type_and_frames_but_not_its_text(
    client: httpx2.AsyncClient, account: Account, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = secrets.token_hex(8)

    async def fail(*_: object, **__: object) -> None:
        cause = KeyError(canary)
        cause.add_note(canary)
        raise RuntimeError(canary, {"password": canary}) from cause

    monkeypatch.setattr("app.features.keys.service.create", fail)
    answer = await client.post("/v1/keys", json={"name": canary}, headers=account.headers)
    await settle(client)
    failed, request = about(log, answer)
    assert (failed["event"], failed["level"], failed["code"]) == ("request_failed", "error", "internal_error")
    assert failed["exception"]["type"] == "builtins.RuntimeError"
    assert re.search(r"/test_logs\.py:\d+ fail$", failed["exception"]["frames"][-1])
    assert (request["event"], request["status"]) == ("request", 500)
    assert canary not in log.getvalue()


async def test_a_database_error_is_logged_with_its_sqlstate_and_no_text(
    client: httpx2.AsyncClient, account: Account, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await account.create_key()  # the next key gets the same id, which the database's error text quotes
    monkeypatch.setattr("app.features.keys.service.new_id", lambda _prefix: key.id)
    answer = await client.post("/v1/keys", json={"name": "twin"}, headers=account.headers)
    await settle(client)
    assert answer.status_code == 500
    assert about(log, answer)[0]["exception"]["sqlstate"] == "23505"
    assert key.id not in log.getvalue()
    assert not re.search(r"insert into|duplicate key|api_keys_pkey", log.getvalue(), re.IGNORECASE)


async def test_no_value_of_a_request_and_no_secret_is_logged_even_at_debug(
    client: httpx2.AsyncClient, canaries: dict[str, str], log: StringIO
) -> None:
    email, password = f"{canaries['email']}@example.com", canaries["password"]
    account = await sign_up(client, email=email, password=password)
    key = await account.create_key(name=canaries["name"])
    made = await generate(client, key, prompt=canaries["prompt"])
    await client.get(made.json()["url"].removeprefix("https://pictures.test"))
    wrong = {"email": canaries["email"], "password": [password], canaries["name"]: canaries["name"]}
    odd = {"X-Odd": canaries["header"], "User-Agent": canaries["header"], "Cookie": canaries["header"]}
    for path in ("/v1/auth/register", "/v1/auth/login", "/v1/keys", "/v1/generate", f"/{canaries['query']}"):
        for headers in (account.headers, key.headers, {"Authorization": f"Bearer {canaries['header']}"}):
            for body in ({"email": email, "password": f"{password}!"}, wrong, {"prompt": canaries["prompt"]}):
                await client.post(f"{path}?{canaries['query']}", json=body, headers={**headers, **odd})
            await client.post(path, content=f"{password}\xff".encode("latin-1"), headers={**headers, **odd})
    await client.get(f"/v1/keys?cursor={canaries['query']}", headers=account.headers)
    await settle(client)
    written = log.getvalue()
    assert len(lines_of(log)) > 60
    for secret in (*canaries.values(), account.token, key.raw, key.raw[:16], made.json()["id"]):
        assert secret not in written
    assert not [each for each in (key.id, account.id) if each in str(without_caller(log))]


async def test_no_value_of_a_request_is_logged_when_the_database_fails(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, log: StringIO
) -> None:
    name, email = f"name{secrets.token_hex(8)}", new_email()
    async with database.transaction():
        await database.execute("lock table users, api_keys in access exclusive mode")
        answers = await asyncio.gather(
            client.post("/v1/keys", json={"name": name}, headers=account.headers),
            client.post("/v1/auth/register", json={"email": email, "password": "a long password"}),
        )
    await settle(client)
    assert [answer.status_code for answer in answers] == [503, 503]
    assert [about(log, answer)[0]["exception"]["sqlstate"] for answer in answers] == ["55P03", "55P03"]
    for secret in (name, email, account.id, "argon2"):
        assert secret not in log.getvalue()


def test_a_caught_exception_is_logged_with_its_type_and_frames_however_it_is_handed_over(log: StringIO) -> None:
    try:
        int("a secret")
    except ValueError as error:
        logger.exception("one")
        logger.warning("two", exc_info=True)
        logger.warning("three", exc_info=error)
        logging.getLogger("a.library").exception("four")
    assert [line["exception"]["type"] for line in lines_of(log)] == ["builtins.ValueError"] * 4
    assert all(__name__.rpartition(".")[2] in line["exception"]["frames"][0] for line in lines_of(log))
    assert "a secret" not in log.getvalue()


def test_a_log_entry_is_one_line_whatever_its_values_hold(log: StringIO) -> None:
    logger.warning("odd", text='line\nbreak\r\x1b[31m "quoted" \u2028 \ud800')
    logging.getLogger("a.library").warning("line\nbreak of %s", "a library")
    assert len(log.getvalue().strip("\n").split("\n")) == 2
    assert [line["event"] for line in map(json.loads, log.getvalue().strip("\n").split("\n"))] == [
        "odd",
        "line\nbreak of a library",
    ]


def test_sql_statements_are_not_logged_at_any_level(log: StringIO) -> None:
    for name in QUIET:
        logging.getLogger(f"{name}.part").info("insert into users values ('secret')")
    assert log.getvalue() == ""


@pytest.mark.parametrize(("level", "written"), [("DEBUG", 3), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_lines_below_the_log_level_are_not_written(log: StringIO, level: str, written: int) -> None:
    configure_logging(level)
    [handler] = logging.root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(log)
    for write in (logger.info, logger.warning, logger.error):
        write("event")
    assert len(lines_of(log)) == written
