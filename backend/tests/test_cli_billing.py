"""`nanobanana billing` and trial credit beyond the examples of docs/commands.md."""

import asyncio
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest
from tests.harness import JSON, PASSWORD, Account, new_email, until_waited_for
from tests.test_cli import nanobanana_in_here

NOBODY = "nobody@example.com"
REFUSED = [
    *(
        ("There is no account with that", (*command, owner, *rest))
        for command, rest in ((("grant",), ("5",)), (("adjust",), ("-5",)), (("cap",), ("5",)), (("show",), ()))
        for owner in (NOBODY, f"acc_{'0' * 20}", "'; drop table users --")
    ),
    ("There is no such key, or it is revoked", ("cap", f"key_{'0' * 20}", "5")),
    ("Name the key by its id", ("cap", "key_1", "5")),
    ("Nothing was charged for that generation", ("refund", "gen_%")),
]
MISUSED = [
    ("grant", NOBODY),
    *(("grant", NOBODY, amount) for amount in ("0", "-5", "five", "1e3", "0.0000001", "1000000000")),
    *(("adjust", NOBODY, amount) for amount in ("0", "-0", "--5", "-")),
    ("grant", NOBODY, "5", "--expires", "tomorrow"),
    ("grant", NOBODY, "5", "--expires", "2020-01-01"),
    ("refund", "gen_1", "--amount", "0"),
    ("cap", NOBODY, "some"),
    ("cap", NOBODY, "5", "--period", "year"),
    *((command, NOBODY, "5", "--reference", blank) for command in ("grant", "adjust") for blank in ("", " ")),
]


async def run(database_url: str, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    folder = Path("of no use")
    return await asyncio.to_thread(
        nanobanana_in_here, folder, *arguments, stdin=stdin, DATABASE_URL=database_url, **{"BILLING": "on", **env}
    )


async def printed(database_url: str, *arguments: str) -> str:
    """Without the currency: the database has one from the first test on that gives a model a price."""
    done = await run(database_url, "billing", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout.replace(" USD", "")


async def _credit(account: Account) -> str:
    answer = await account.client.get("/v1/billing", headers=account.headers)
    credit: str = answer.json()["credit"]
    return credit


async def _entries(account: Account) -> list[JSON]:
    answer = await account.client.get("/v1/billing/entries", headers=account.headers)
    found: list[JSON] = answer.json()
    return found


async def test_wrong_input_is_one_sentence(database_url: str) -> None:
    for sentence, arguments in REFUSED:
        done = await run(database_url, "billing", *arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert done.stderr.startswith(f"nanobanana: {sentence}"), (arguments, done.stderr)
        assert done.stderr.count("\n") == 1
    for arguments in MISUSED:
        done = await run(database_url, "billing", *arguments)
        assert done.returncode == 2, arguments


@pytest.mark.parametrize("command", [("billing", "grant"), ("billing", "cap"), ("limits", "set")], ids=" ".join)
@pytest.mark.parametrize("amount", ["-5", "-0.5"])
async def test_a_negative_number_where_none_may_be_is_called_so(
    database_url: str, command: Sequence[str], amount: str
) -> None:
    done = await run(database_url, *command, NOBODY, amount)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("Error: A number must not be negative here.\n")
    unknown = await run(database_url, *command, NOBODY, "--five")
    assert "No such option '--five'" in unknown.stderr


async def test_what_the_database_does_not_do_is_said_as_it_is(
    database_url: str, account: Account, database: asyncpg.Connection
) -> None:
    async def said(reference: str) -> str:
        done = await run(database_url, "billing", "grant", account.email, "999999999", "--reference", reference)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr.removeprefix("nanobanana: The database of DATABASE_URL ").removesuffix("\n")

    assert await said(secrets.token_hex(9000)) == "cannot take a value that it was given: it is too long."
    no_value = "cannot take a value that it was given: a number is too large, or a text is not of Unicode."
    assert await said("\udcff") == no_value
    row = "update balances set credit = $2 where account_id = $1"
    await database.execute(row, account.account_id, 2**63 - 1)
    assert await said("too much") == no_value
    await database.execute(row, account.account_id, 0)
    async with database.transaction():
        await database.execute("select from balances where account_id = $1 for update", account.account_id)
        assert await said("locked") == "keeps what is to be changed locked for somebody else; try again."
        cancelling = asyncio.create_task(said("cancelled"))
        await until_waited_for(database)
        await database.execute(
            "select pg_cancel_backend(pid) from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))"
        )
        assert await cancelling == "has cancelled what took too long; try again."
    assert await _entries(account) == []


async def test_a_grant_is_made_once_for_each_reference_and_shown_to_its_account(
    database_url: str, account: Account, other_account: Account
) -> None:
    reference = secrets.token_hex(8)
    grant = ("grant", account.email.upper(), "5", "--reference", reference, "--expires", "2999-12-31")
    assert "is changed by 5: it is 5." in await printed(database_url, *grant)
    assert "changes nothing" in await printed(database_url, *grant)
    for owner, amount in ((account.email, "6"), (other_account.email, "5")):
        done = await run(database_url, "billing", "grant", owner, amount, "--reference", reference)
        assert (done.returncode, done.stderr) == (
            1,
            f"nanobanana: The reference grant:{reference} belongs to an entry of another account or amount.\n",
        )
    [entry] = await _entries(account)
    assert (entry["amount"], entry["kind"], entry["expires_at"]) == ("5", "grant", "2999-12-31T00:00:00Z")
    assert await _entries(other_account) == []


async def test_without_a_reference_each_grant_is_another(database_url: str, account: Account) -> None:
    for _ in range(2):
        await printed(database_url, "grant", account.account_id, "0.000001")
    assert await _credit(account) == "0.000002"


async def test_an_adjustment_takes_no_more_than_is_free(
    database_url: str, account: Account, database: asyncpg.Connection
) -> None:
    await printed(database_url, "grant", account.id, "5")
    await database.execute("update balances set held = 2000000 where account_id = $1", account.account_id)
    done = await run(database_url, "billing", "adjust", account.email, "-3.000001")
    assert (done.returncode, done.stdout) == (1, "")
    assert "at most 3 " in done.stderr
    assert "is changed by -3: it is 2." in await printed(database_url, "adjust", account.email, "-3")


async def test_the_price_of_a_delivered_image_is_given_back_once(
    database_url: str, account: Account, database: asyncpg.Connection
) -> None:
    delivered, failed = (f"gen_01kapn5vfe{secrets.token_hex(10)}" for _ in range(2))
    for generation_id, status in ((delivered, "delivered"), (failed, "failed")):
        await database.execute(
            """
            insert into generations (id, request_id, account_id, environment, key_id, provider, prompt, size, status,
              price, delivered_at)
            values ($1, $1, $2, 'live', 'key_1', 'openai', '', '64x64', $3, 50000,
              case when $3 = 'delivered' then now() end)
            """,
            generation_id,
            account.account_id,
            status,
        )
    too_much = await run(database_url, "billing", "refund", delivered, "--amount", "0.050001")
    assert (too_much.returncode, too_much.stderr) == (1, "nanobanana: At most its price, 0.05, can be given back.\n")
    nothing = await run(database_url, "billing", "refund", failed)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "is changed by 0.05: it is 0.05." in await printed(database_url, "refund", delivered)
    assert "changes nothing" in await printed(database_url, "refund", delivered)
    other = await run(database_url, "billing", "refund", delivered, "--amount", "0.01")
    assert (other.returncode, other.stdout) == (1, "")
    [entry] = await _entries(account)
    assert (entry["kind"], entry["amount"], entry["reference"]) == ("refund", "0.05", f"refund:{delivered}")
    await database.execute("delete from generations where id = any($1)", [delivered, failed])  # they were not counted


async def test_caps_are_set_and_shown_and_removed(database_url: str, account: Account) -> None:
    key = await account.create_key()
    assert await printed(database_url, "cap", account.email, "50") == "The cap is 50.\n"
    assert await printed(database_url, "cap", key.id, "0", "--period", "total") == "The cap is 0.\n"
    refused = await run(database_url, "billing", "cap", account.email, "5", "--period", "day")
    assert refused.returncode == 2
    shown = (await printed(database_url, "show", account.email)).splitlines()
    assert {"cap: 50", "credit: 0", f"cap of {key.id}: 0 in all, spent 0, held 0"} <= set(shown)
    for owner in (account.email, key.id):
        assert await printed(database_url, "cap", owner, "none") == "The cap is removed.\n"
    assert not [line for line in (await printed(database_url, "show", account.email)).splitlines() if "cap of" in line]


async def test_without_billing_the_commands_work_and_say_that_nothing_is_charged(
    database_url: str, account: Account
) -> None:
    for arguments in (("grant", account.email, "5"), ("cap", account.email, "5"), ("show", account.email)):
        done = await run(database_url, "billing", *arguments, BILLING="off")
        assert done.returncode == 0, done.stderr
        assert done.stderr == "BILLING is off here: nothing is charged yet.\n"
    assert await _credit(account) == "5"


async def test_an_account_that_an_operator_makes_has_the_trial_credit(database_url: str) -> None:
    email = new_email()
    done = await run(database_url, "accounts", "create", email, stdin=PASSWORD, TRIAL_CREDIT="2.5")
    assert done.returncode == 0, done.stderr
    assert "credit: 2.5\n" in await printed(database_url, "show", email)
