"""Registration: its answer, and the emails and passwords that it accepts."""

import secrets
from collections.abc import Callable

import argon2
import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.harness import JSON, PASSWORD, Account, new_email, post, register, sign_up, without_request_id

OWASP_FLOOR = argon2.Parameters(
    type=argon2.Type.ID, version=19, salt_len=16, hash_len=32, time_cost=2, memory_cost=19_456, parallelism=1
)


async def _log_in(client: httpx2.AsyncClient, email: str, password: str) -> httpx2.Response:
    return await post(client, "/v1/auth/login", {"email": email, "password": password})


def _pointers(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


async def _count(database: asyncpg.Connection) -> int:
    count: int = await database.fetchval("select count(*) from users")
    return count


async def test_registration_returns_exactly_the_documented_fields(client: httpx2.AsyncClient) -> None:
    email = new_email()
    answer = await register(client, email=email)
    assert answer.status_code == 201
    body: JSON = answer.json()
    assert set(body) == {"id", "email", "created_at"}
    assert body["id"].startswith("usr_")
    assert body["email"] == email
    assert body["created_at"].endswith("Z")
    assert PASSWORD not in answer.text


async def test_the_account_of_a_token_is_the_one_that_was_registered(client: httpx2.AsyncClient) -> None:
    credentials = {"email": new_email(), "password": PASSWORD}
    registered = await client.post("/v1/auth/register", json=credentials)
    token = (await client.post("/v1/auth/login", json=credentials)).json()["access_token"]
    shown = await client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert (shown.status_code, shown.json()) == (200, registered.json())


@pytest.mark.parametrize("spell", [str, str.upper, str.title, str.swapcase])
async def test_an_email_is_one_account_in_any_letter_case(
    client: httpx2.AsyncClient, account: Account, spell: Callable[[str], str]
) -> None:
    answer = await register(client, email=spell(account.email))
    assert answer.status_code == 409
    problem = without_request_id(answer)
    assert (problem["code"], problem["detail"]) == ("email_already_registered", "Email already registered")


async def test_an_email_is_stored_in_lower_case(client: httpx2.AsyncClient, database: asyncpg.Connection) -> None:
    email = new_email()
    answer = await register(client, email=email.upper())
    assert answer.json()["email"] == email
    assert await database.fetchval("select email from users where id = $1", answer.json()["id"]) == email


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@localhost",
        "ada@[127.0.0.1]",
        "ada@example..com",
        "ada@example.com.",
        ".ada@example.com",
        " ada@example.com",
        "ada@example.com ",
        "a@b.c\r\nBcc:",
        "a@b.c\r\nBcc: eve@example.com",
        "ada@example.com\n",
        "ada\0@example.com",
        "ada\ud800@example.com",
        "Ada <ada@example.com>",
        '"ada lovelace"@example.com',
        '"ada"@example.com',
        "ada(comment)@example.com",
        "\uff41da@example.com",  # full-width
        "ad\u0131@example.com",  # dotless i
        "\u212aate@example.com",  # the sign of kelvin, whose lower case is a plain k
        "ad\u00e9@example.com",
        f"{'a' * 65}@example.com",
        f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 58}.com",  # 255 characters
        f"a@{'.'.join([chr(0xFC) * 40] * 5)}.com",  # 206 characters, and 288 as IDNA
        None,
        1,
        ["ada@example.com"],
    ],
)
async def test_an_invalid_email_is_refused_and_not_echoed(
    client: httpx2.AsyncClient, database: asyncpg.Connection, email: object
) -> None:
    before = await _count(database)
    answer = await register(client, email=email)
    assert _pointers(answer) == ["#/email"]
    assert await _count(database) == before
    assert "Bcc" not in answer.text
    assert "\ufffd" not in answer.text


async def test_the_longest_valid_email_is_accepted(client: httpx2.AsyncClient) -> None:
    local = secrets.token_hex(32)
    email = f"{local}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com"
    assert (len(local), len(email)) == (64, 254)
    assert (await register(client, email=email)).status_code == 201


@pytest.mark.parametrize(
    ("domain", "stored"),
    [
        ("b\u00fccher.example.com", "xn--bcher-kva.example.com"),
        ("B\u00dcCHER.example.com", "xn--bcher-kva.example.com"),
        ("XN--BCHER-KVA.example.com", "xn--bcher-kva.example.com"),
        ("\uff45xample.com", "example.com"),  # full-width
        ("\u212aelvin.example.com", "kelvin.example.com"),
    ],
)
async def test_a_domain_is_stored_as_idna_so_that_its_spellings_are_one_account(
    client: httpx2.AsyncClient, domain: str, stored: str
) -> None:
    local = secrets.token_hex(8)
    answer = await register(client, email=f"{local}@{domain}")
    assert (answer.status_code, answer.json()["email"]) == (201, f"{local}@{stored}")
    assert (await register(client, email=f"{local}@{stored}")).status_code == 409


@pytest.mark.parametrize(
    "password",
    ["a" * 8, "\u00e9" * 4, " " * 8, "\U0001f34c" * 200, "a" * 1024, "\u00e9" * 512, "\r\n\t\x01\x7f\u202e${}"],
)
async def test_a_password_of_8_to_1024_bytes_is_accepted_whatever_its_characters(
    client: httpx2.AsyncClient, password: str
) -> None:
    assert (await sign_up(client, password=password)).token


@pytest.mark.parametrize(
    "password",
    [
        "",
        "a" * 7,
        "a" * 1025,
        "\u00e9" * 513,
        "\U0001f34c",
        "12345678\0",
        "12345678\ud800",
        None,
        12345678,
        ["12345678"],
    ],
)
async def test_any_other_password_is_refused_and_not_echoed(
    client: httpx2.AsyncClient, database: asyncpg.Connection, password: object
) -> None:
    before = await _count(database)
    answer = await register(client, password=password)
    assert _pointers(answer) == ["#/password"]
    assert await _count(database) == before
    assert "12345678" not in answer.text


@pytest.mark.parametrize(
    ("chosen", "tried"),
    [
        ("a" * 72, "a" * 73),
        ("a" * 73, "a" * 72),
        ("correct horse", "correct horse "),
        ("correct horse ", "correct horse"),
        ("correct horse", "Correct horse"),
        ("caf\u00e9 au lait", "cafe\u0301 au lait"),
    ],
)
async def test_a_password_is_used_exactly_as_it_is_sent(client: httpx2.AsyncClient, chosen: str, tried: str) -> None:
    account = await sign_up(client, password=chosen)
    assert (await _log_in(client, account.email, tried)).status_code == 401


async def test_the_minimum_length_applies_to_new_passwords_and_not_at_login(
    client: httpx2.AsyncClient, start: Start
) -> None:
    older = await sign_up(client, password="8 bytes.")
    stricter = await start(password_bytes_min=12)
    assert _pointers(await register(stricter, password="a" * 11)) == ["#/password"]
    assert (await register(stricter, password="a" * 12)).status_code == 201
    assert (await _log_in(stricter, older.email, "8 bytes.")).status_code == 200
    assert (await _log_in(stricter, older.email, "short")).status_code == 401


@pytest.mark.parametrize("field", ["role", "is_active", "id", "created_at", "password_hash"])
async def test_registration_accepts_no_other_fields(
    client: httpx2.AsyncClient, database: asyncpg.Connection, field: str
) -> None:
    before = await _count(database)
    assert _pointers(await register(client, **{field: "admin"})) == ["#"]
    assert await _count(database) == before


async def test_both_fields_are_needed(client: httpx2.AsyncClient) -> None:
    assert _pointers(await post(client, "/v1/auth/register", {})) == ["#/email", "#/password"]


@pytest.mark.usefixtures("production_hashes")
async def test_a_password_is_stored_as_argon2id_at_owasps_floor_with_a_salt_of_its_own(
    client: httpx2.AsyncClient, database: asyncpg.Connection
) -> None:
    ids = [(await sign_up(client)).id for _ in range(2)]
    stored = [row["password_hash"] for row in await database.fetch("select * from users where id = any($1)", ids)]
    assert [argon2.extract_parameters(each) for each in stored] == [OWASP_FLOOR, OWASP_FLOOR]
    assert len({each.split("$")[4] for each in stored}) == 2


async def test_a_registered_email_costs_the_same_one_hash_as_a_new_one(
    client: httpx2.AsyncClient, account: Account, hashed: list[tuple[str, argon2.Parameters]]
) -> None:
    for email, status in ((new_email(), 201), (account.email, 409)):
        hashed.clear()
        assert (await register(client, email=email)).status_code == status
        assert hashed == [("hash", OWASP_FLOOR)]
