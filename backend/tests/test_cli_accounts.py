"""`nanobanana accounts`, `keys`, `invitations` and `usage report` beyond the examples of docs/commands.md."""

import asyncio
import csv
import json
import subprocess
from io import StringIO
from pathlib import Path

import httpx2
import pytest
from app.cli.start_message import start_message
from app.core.db import connect_for_writing
from app.core.settings import Settings
from tests.docs.commands_page import fill
from tests.harness import PASSWORD, Account, everything_stored, generate, new_email, sign_up
from tests.test_cli import nanobanana_in_here

UNKNOWN = "28fm63cjp43w44255s68"
NEW_PASSWORD = "a banana is a berry, a strawberry is not"
BY_ID = "Name the key by its id, such as key_28fm63cjp43w44255s68"
NO_PASSWORD = "No password came on standard input: send it as its first line, or use --generate."


async def run(database_url: str, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        nanobanana_in_here, Path("of no use"), *arguments, stdin=stdin, DATABASE_URL=database_url, **env
    )


async def printed(database_url: str, *arguments: str, stdin: str = "") -> str:
    done = await run(database_url, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


REFUSED = [
    ("EMAIL must be an email address", ("accounts", "create", "nobody"), PASSWORD),
    ("The password must be at least 8 bytes", ("accounts", "create", "new@example.com"), "short\n"),
    ("The password must be text of 1 to 1024 bytes", ("accounts", "create", "new@example.com"), "\n"),
    (NO_PASSWORD, ("accounts", "create", "new@example.com"), ""),
    (NO_PASSWORD, ("accounts", "set-password", "grace@example.com"), ""),
    ("The password must be text of 1 to 1024 bytes", ("accounts", "create", "new@example.com"), "x" * 1025),
    ("There is an account with that email already", ("accounts", "create", "GRACE@example.com"), PASSWORD),
    *(
        ("There is no account with that", ("accounts", command, owner), PASSWORD)
        for command in ("show", "disable", "enable", "set-password", "operator", "delete")
        for owner in ("nobody@example.com", f"acc_{'0' * 20}", f"key_{UNKNOWN}", "'; drop table users --")
    ),
    ("The password must be at least 8 bytes", ("accounts", "set-password", "grace@example.com"), "short"),
    ("There is no such key", ("keys", "find", f"key_{'0' * 20}"), ""),
    ("Name the key by its id, or", ("keys", "find", "%"), ""),
    (f"{BY_ID}; `nanobanana keys find nb_live_12345678` prints its id.", ("keys", "revoke", "nb_live_12345678"), ""),
    (f"{BY_ID}.", ("keys", "revoke", "%", "--yes"), ""),
    ("What was sent is no API key", ("keys", "find", "--stdin"), "nb_live_short"),
    ("There is no such key", ("keys", "revoke", "--stdin", "--yes"), f"nb_live_{'f' * 32}"),
    ("The shell keeps what a command line says", ("keys", "find", f"nb_live_{'f' * 32}"), ""),
    ("The shell keeps what a command line says", ("keys", "revoke", f"nb_test_{'f' * 32}", "--yes"), ""),
    ("EMAIL must be an email address", ("invitations", "create", "--email", "nobody"), ""),
    ("There is no such invitation", ("invitations", "revoke", f"inv_{'0' * 20}"), ""),
]

MISUSED = [
    ("keys", "find"),
    ("keys", "find", f"key_{UNKNOWN}", "--stdin"),
    ("accounts", "show"),
    ("invitations", "create", "--expires", "tomorrow"),
    ("invitations", "create", "--uses", "0"),
    ("usage", "report", "--by", "colour"),
    ("usage", "report", "--month", "2026-13"),
    ("usage", "report", "--month", "2026-10", "--from", "2026-10-01"),
    ("usage", "report", "--from", "2026-10-02", "--to", "2026-10-01"),
    ("usage", "report", "--csv", "--json"),
    ("usage", "report", "--json", "--csv"),
    ("billing", "revenue", "--csv", "--json"),
]


async def test_wrong_input_is_one_sentence_and_changes_nothing(new_database_url: str) -> None:
    database = await connect_for_writing(new_database_url)
    await fill(database)
    before = await everything_stored(database)
    for sentence, arguments, stdin in REFUSED:
        done = await run(new_database_url, *arguments, stdin=stdin)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert done.stderr.startswith(f"nanobanana: {sentence}"), arguments
        assert (done.stderr.count("\n"), "f" * 32 in done.stderr) == (1, False)
    for arguments in MISUSED:
        done = await run(new_database_url, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
    assert await everything_stored(database) == before
    await database.close()


async def test_an_account_that_a_command_made_is_like_one_that_signed_up(
    database_url: str, client: httpx2.AsyncClient
) -> None:
    email = new_email()
    done = await run(database_url, "accounts", "create", email.upper(), stdin=f"{PASSWORD}\n", REGISTRATION="closed")
    assert done.returncode == 0, done.stderr
    made = await client.post("/v1/auth/login", json={"email": email, "password": PASSWORD})
    account = Account(client, "", email, made.json()["access_token"])
    assert (await generate(client, await account.create_key())).status_code == 200


async def test_a_new_password_ends_every_login_and_no_key(database_url: str, account: Account) -> None:
    key = await account.create_key()
    await printed(database_url, "accounts", "set-password", account.email, stdin=f"{NEW_PASSWORD}\n")
    assert (await account.client.get("/v1/auth/me", headers=account.headers)).status_code == 401
    statuses = []
    for password in (PASSWORD, NEW_PASSWORD):
        credentials = {"email": account.email, "password": password}
        statuses.append((await account.client.post("/v1/auth/login", json=credentials)).status_code)
    assert statuses == [401, 200]
    assert (await generate(account.client, key)).status_code == 200
    said = await printed(database_url, "accounts", "set-password", account.id, "--generate")
    made = {"email": account.email, "password": said.split()[-1]}
    assert (await account.client.post("/v1/auth/login", json=made)).status_code == 200


async def test_a_key_that_was_sent_is_found_and_revoked_at_once(database_url: str, account: Account) -> None:
    key, other = await account.create_key(name="leaked"), await account.create_key()
    for stdin in (f"{key.raw}\n", f"  {key.raw}"):
        facts = (await printed(database_url, "keys", "find", "--stdin", stdin=stdin)).splitlines()
        assert {f"id: {key.id}", "name: leaked", f"email: {account.email}"} <= set(facts)
    assert f"id: {key.id}\n" in await printed(database_url, "keys", "find", key.raw[:16])
    assert "--yes" in await printed(database_url, "keys", "revoke", key.id)
    assert (await generate(account.client, key)).status_code == 200
    await printed(database_url, "keys", "revoke", "--stdin", "--yes", stdin=key.raw)
    assert [(await generate(account.client, each)).status_code for each in (key, other)] == [401, 200]
    again = await run(database_url, "keys", "revoke", key.id, "--yes")
    assert (again.returncode, "revoked already" in again.stderr) == (1, True)


async def test_a_list_of_many_pages_has_each_row_once(
    database_url: str, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.database._ROWS_AT_A_TIME", 2)
    part = new_email().partition("@")[0]
    people = [await sign_up(client, email=f"{part}{number}@example.com") for number in range(5)]
    keys = [await people[0].create_key() for _ in range(5)]
    await people[0].revoke_key(keys[0])
    rows = await printed(database_url, "accounts", "list", part.upper(), "--json")
    told = [json.loads(line) for line in rows.splitlines()]
    assert [each["email"] for each in told] == [each.email for each in people]
    assert [each["keys"] for each in told] == [4, 0, 0, 0, 0]
    listed = (await printed(database_url, "keys", "list", people[0].account_id)).splitlines()[1:]
    assert sorted(line.split()[0] for line in listed) == sorted(each.id for each in keys)
    links = ("invitations", "create", "--email", people[0].email)
    for _ in range(3):
        assert (await run(database_url, *links, REGISTRATION="invite")).returncode == 0
    invited = await printed(database_url, "invitations", "list", "--json")
    assert [json.loads(line)["email"] for line in invited.splitlines()].count(people[0].email) == 3


USED = """
    insert into api_keys (id, user_id, account_id, name, environment, prefix, key_hash)
    select 'key_' || lpad($1, 20, '0'), user_id, account_id, $2, $3, '', sha256($1::bytea) from api_keys limit 1
    returning id
"""
COUNTED = "insert into usage values ($1, $2::text::date, $3, $4, $5, $5::bigint / 2, $6)"


async def test_a_report_adds_up_over_all_pages_and_its_cells_are_no_formulas(
    new_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.usage.report._KEYS_AT_A_TIME", 1)
    monkeypatch.setattr("app.features.usage.report._ACCOUNTS_AT_A_TIME", 1)
    database = await connect_for_writing(new_database_url)
    await fill(database)
    formula = await database.fetchval(USED, "1", "=1+1", "live")
    test_key = await database.fetchval(USED, "2", "for tests", "test")
    for day, key_id, model, images, amount, cost in (
        ("2026-09-30", formula, "poster", 100, 1, 1),
        ("2026-10-01", formula, "poster", 5, 250_000, 1_234_567),
        ("2026-10-31", formula, "nano-banana", 1, 50_000, 0),
        ("2026-10-31", test_key, "nano-banana", 7, 0, 0),
        ("2026-11-01", formula, "poster", 100, 1, 1),
    ):
        await database.execute(COUNTED, key_id, day, images, model, amount, cost)

    async def report(by: str) -> list[list[str]]:
        lines = await printed(new_database_url, "usage", "report", "--by", by, "--month", "2026-10", "--csv")
        first, *rows = csv.reader(StringIO(lines))
        assert first[-6:] == ["images", "test_images", "list_amount", "amount", "cost", "currency"]
        return rows

    assert [row[1:] for row in await report("account")] == [
        ["grace@example.com", "16", "7", "0.45", "0.15", "1.351567", "USD"]
    ]
    assert [(row[1], *row[-6:-1]) for row in await report("key")] == [
        ("'=1+1", "6", "0", "0.3", "0.15", "1.234567"),
        ("for tests", "7", "7", "0", "0", "0"),
        ("website", "3", "0", "0.15", "0", "0.117"),
    ]
    assert [row[:-1] for row in await report("model")] == [
        ["nano-banana", "11", "7", "0.2", "0.025", "0.117"],
        ["poster", "5", "0", "0.25", "0.125", "1.234567"],
    ]
    assert [(row[0], row[1]) for row in await report("day")] == [
        ("2026-10-01", "5"),
        ("2026-10-14", "3"),
        ("2026-10-31", "8"),
    ]
    await database.close()


@pytest.mark.parametrize("registration", ["invite", "closed"])
def test_the_start_prints_no_sign_up_that_would_be_refused(settings: Settings, registration: str) -> None:
    said = start_message(settings.model_copy(update={"registration": registration}))
    assert ("/v1/auth/register" in said, "nanobanana accounts create" in said) == (False, True)


def test_the_start_says_whether_billing_is_on(settings: Settings) -> None:
    for billing in ("off", "on"):
        assert f"Billing is {billing}" in start_message(settings.model_copy(update={"billing": billing}))
