"""`/v1/billing` and the caps of keys: what an account reads and sets of its own money, and of nobody else's."""

from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.console.browser import new_browser
from tests.harness import JSON, Account, generate, new_email, sign_up
from tests.problems import check_problem
from tests.test_cli_billing import printed

NOTHING = {
    "currency": None,
    "mode": "prepaid",
    **dict.fromkeys(("credit", "held", "charged", "available", "allowance", "spent"), "0"),
    "cap": None,
    "plan": None,
}
"""The balance of a new account, but for its period."""
NO_AMOUNTS = ("-1", "1e3", "0.0000001", "1.", ".5", "", " 1", "1000000000", "\u0661", 1, 0.5, True, ["1"])
PUBLIC_URL = "https://pictures.test"


MODELS = """
default = "drawn"
currency = "USD"
[models.drawn]
price = "0.05"
[[models.drawn.routes]]
provider = "stub"
"""


async def _get(account: Account, path: str = "") -> Any:
    answer = await account.client.get(f"/v1/billing{path}", headers=account.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _put(account: Account, path: str, **body: object) -> httpx2.Response:
    return await account.client.put(path, json=body, headers=account.headers)


async def _enter(database: asyncpg.Connection, account: Account, *amounts: int) -> None:
    statement = """
        insert into credit_entries (id, account_id, kind, amount, reference, charged_before)
        select 'ent_' || n || $1, $1, 'grant', amount, 'grant:' || n || $1, 0
        from unnest($2::bigint[]) with ordinality as amounts(amount, n)
    """
    await database.execute(statement, account.account_id, amounts)


async def _charge(database: asyncpg.Connection, account: Account, hours: dict[str, int]) -> None:
    statement = "insert into charges values ($1, $2, $3::bigint, $3::bigint - 2, 2, 0)"
    for hour, amount in hours.items():
        await database.execute(statement, account.account_id, datetime.fromisoformat(hour), amount)


async def _all_pages(account: Account, target: str) -> list[list[JSON]]:
    pages = list[list[JSON]]()
    while target:
        assert len(pages) < 10, "it does not end"
        answer = await account.client.get(target, headers=account.headers)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        target = answer.links.get("next", {}).get("url", "").removeprefix(PUBLIC_URL)
    return pages


async def test_a_login_token_and_an_api_key_read_their_accounts_balance(
    database: asyncpg.Connection, account: Account
) -> None:
    fresh = await _get(account)
    begin, end = (datetime.fromisoformat(fresh.pop(name)) for name in ("period_start", "period_end"))
    assert fresh == NOTHING
    assert begin <= datetime.now(UTC) < end
    await database.execute(
        """
        update balances set credit = 20000000, charged = 7450000, held = 50000, allowance = 1000000, spent = 700000,
          cap = 1, anchor = '14 days',
          period = date_trunc('month', now() - interval '14 days', 'UTC') + interval '14 days'
        where account_id = $1
        """,
        account.account_id,
    )
    found = await _get(account)
    assert {name: found[name] for name in ("credit", "charged", "held", "available", "allowance", "spent", "cap")} == {
        "credit": "20",
        "charged": "7.45",
        "held": "0.05",
        "available": "12.8",
        "allowance": "1",
        "spent": "0.7",
        "cap": "0.000001",
    }
    assert (found["period_start"][8:], found["period_end"][8:]) == ("15T00:00:00Z",) * 2
    key = await account.create_key(environment="test")
    for name, value in (("Authorization", f"Bearer {key.raw}"), ("api-key", key.raw), ("x-goog-api-key", key.raw)):
        answer = await account.client.get("/v1/billing", headers={name: value})
        assert (answer.status_code, answer.json()) == (200, found)


async def test_what_was_spent_in_an_earlier_period_is_not_shown(database: asyncpg.Connection, account: Account) -> None:
    row = "update balances set spent = 7, allowance = 9, is_postpaid = true where account_id = $1"
    await database.execute(row, account.account_id)
    found = await _get(account)
    assert (found["spent"], found["mode"], found["available"]) == ("0", "postpaid", None)


async def test_bad_credentials_are_refused_as_what_they_look_like(client: httpx2.AsyncClient, account: Account) -> None:
    key = await account.create_key()
    await account.revoke_key(key)
    for headers, code in (
        ({}, "invalid_token"),
        ({"Authorization": "Bearer eyJ"}, "invalid_token"),
        (key.headers, "invalid_api_key"),
        ({"api-key": "nonsense"}, "invalid_api_key"),
        ({"Authorization": "Bearer nb_live_short"}, "invalid_api_key"),
    ):
        check_problem(await client.get("/v1/billing", headers=headers), 401, code)


@pytest.mark.parametrize("path", ["/entries", "/charges"])
async def test_an_api_key_reads_nothing_but_the_balance(account: Account, path: str) -> None:
    key = await account.create_key()
    answer = await account.client.get(f"/v1/billing{path}", headers=key.headers)
    check_problem(answer, 401, "invalid_token")
    for target in ("/v1/billing/cap", f"/v1/keys/{key.id}/cap"):
        refused = await account.client.put(target, json={"amount": None}, headers=key.headers)
        check_problem(refused, 401, "invalid_token")


async def test_entries_are_listed_newest_first_page_by_page(
    database: asyncpg.Connection, account: Account, other_account: Account
) -> None:
    await _enter(database, account, *range(1, 6))  # in one statement: of one time
    await _enter(database, other_account, 7)
    pages = await _all_pages(account, "/v1/billing/entries?limit=2")
    assert [len(page) for page in pages] == [2, 2, 1]
    entries = [each for page in pages for each in page]
    assert all(newer["id"] > older["id"] for newer, older in pairwise(entries))
    assert [each["amount"] for each in entries] == [f"0.00000{n}" for n in (5, 4, 3, 2, 1)]
    assert set(entries[0]) == {"id", "kind", "amount", "currency", "reference", "expires_at", "created_at"}


async def test_charges_are_listed_by_the_hour_or_day(
    database: asyncpg.Connection, account: Account, other_account: Account
) -> None:
    hours = {"2026-11-01T00:00Z": 10, "2026-11-01T23:00Z": 20, "2026-11-02T00:00Z": 40, "2026-11-03T05:00Z": 80}
    await _charge(database, account, hours)
    await _charge(database, other_account, hours)
    by_hour = await _all_pages(account, "/v1/billing/charges?limit=3&from=2026-11-01&to=2026-11-02")
    assert [[each["start"] for each in page] for page in by_hour] == [
        ["2026-11-02T00:00:00Z", "2026-11-01T23:00:00Z", "2026-11-01T00:00:00Z"]
    ]
    by_day = await _all_pages(account, "/v1/billing/charges?limit=1&group_by=day")
    assert [page[0]["start"][:10] for page in by_day] == ["2026-11-03", "2026-11-02", "2026-11-01"]
    assert by_day[2][0] == {
        "start": "2026-11-01T00:00:00Z",
        "amount": "0.00003",
        "from_allowance": "0.000026",
        "from_credit": "0.000004",
        "billed": "0",
        "currency": None,
    }
    refused = await account.client.get("/v1/billing/charges?from=2026-11-02&to=2026-11-01", headers=account.headers)
    check_problem(refused, 422, "validation_error", more={"errors"})


async def test_an_account_sets_and_removes_its_cap_and_those_of_its_keys(account: Account) -> None:
    key = await account.create_key()
    answer = await _put(account, "/v1/billing/cap", amount="12.50")
    assert (answer.status_code, answer.json()) == (200, await _get(account))
    assert answer.json()["cap"] == "12.5"
    assert (await _put(account, "/v1/billing/cap", amount=None)).json()["cap"] is None
    capped = await _put(account, f"/v1/keys/{key.id}/cap", amount="0.05", period="total")
    assert capped.status_code == 200, capped.text
    cap = {"amount": "0.05", "period": "total", "spent": "0", "held": "0", "ends_at": None}
    assert capped.json()["cap"] == cap
    assert (await _keys(account))[key.id] == capped.json()
    assert (await _put(account, f"/v1/keys/{key.id}/cap", amount="0")).json()["cap"]["period"] == "month"
    removed = await _put(account, f"/v1/keys/{key.id}/cap", amount=None)
    assert removed.json()["cap"] is None
    assert (await _keys(account))[key.id] == removed.json()


async def test_a_cap_above_that_of_the_plan_is_refused_and_without_an_own_one_the_plans_holds(
    account: Account, database: asyncpg.Connection
) -> None:
    plan = """insert into subscriptions (account_id, plan, status, anchor_day, terms)
        values ($1, 'starter', 'active', 1, '{"name": "starter", "title": "", "is_postpaid": true, "cap": 50000000}')"""
    await database.execute(plan, account.account_id)
    for amount, expected in (("49.999999", "49.999999"), ("50.000001", None), (None, "50"), ("50", "50")):
        answer = await _put(account, "/v1/billing/cap", amount=amount)
        if expected is None:
            check_problem(answer, 422, "validation_error", more={"errors"})
            sentence = "Must be at most 50, the cap of the account's plan"
            assert answer.json()["errors"] == [{"pointer": "#/amount", "detail": sentence}]
        else:
            assert (answer.status_code, answer.json()["cap"]) == (200, expected)
    await database.execute("update subscriptions set status = 'stopped' where account_id = $1", account.account_id)
    assert (await _put(account, "/v1/billing/cap", amount=None)).json()["cap"] is None


async def _keys(account: Account) -> dict[str, JSON]:
    answer = await account.client.get("/v1/keys", headers=account.headers)
    return {each["id"]: each for each in answer.json()}


async def test_the_key_of_another_account_has_no_cap_to_set(account: Account, other_account: Account) -> None:
    key = await other_account.create_key()
    revoked = await account.create_key()
    await account.revoke_key(revoked)
    for key_id in (key.id, revoked.id, f"key_{'0' * 20}", "key_%"):
        check_problem(await _put(account, f"/v1/keys/{key_id}/cap", amount="1"), 404, "key_not_found")
    assert (await _keys(other_account))[key.id]["cap"] is None


async def test_what_is_no_amount_is_refused_and_changes_nothing(account: Account) -> None:
    key = await account.create_key()
    before = await _get(account)
    for path in ("/v1/billing/cap", f"/v1/keys/{key.id}/cap"):
        for amount in NO_AMOUNTS:
            answer = await _put(account, path, amount=amount)
            check_problem(answer, 422, "validation_error", more={"errors"})
            if isinstance(amount, str):
                sentence = "Must be an amount such as 12.50, with a point and at most 6 digits after it"
                assert answer.json()["errors"] == [{"pointer": "#/amount", "detail": sentence}]
        check_problem(await _put(account, path), 422, "validation_error", more={"errors"})
    period = await _put(account, f"/v1/keys/{key.id}/cap", amount="1", period="year")
    check_problem(period, 422, "validation_error", more={"errors"})
    assert (await _get(account), (await _keys(account))[key.id]["cap"]) == (before, None)


async def test_what_is_given_is_spent_up_to_the_caps_and_what_is_given_back_is_spent_again(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text(MODELS)
    client = await start(billing="on", models_file=tmp_path / "models.toml")
    account = await sign_up(client)
    key = await account.create_key()
    cap = f"/v1/keys/{key.id}/cap"

    async def draw(*, status: int = 200) -> JSON:
        answer = await generate(client, key)
        assert answer.status_code == status, answer.text
        drawn: JSON = answer.json()
        return drawn

    await printed(database_url, "grant", account.email, "0.15")
    first = await draw()
    await _put(account, cap, amount="0.09", period="day")
    assert (await draw(status=429))["code"] == "budget_exceeded"
    assert (await _put(account, cap, amount="0.1", period="day")).json()["cap"]["spent"] == "0.05"
    await draw()
    assert (await _keys(account))[key.id]["cap"]["spent"] == "0.1"
    await draw(status=429)
    await _put(account, cap, amount=None)
    await _put(account, "/v1/billing/cap", amount="0.1")
    await draw(status=429)
    await _put(account, "/v1/billing/cap", amount=None)
    await draw()
    assert (await draw(status=402))["code"] == "insufficient_credit"
    await printed(database_url, "refund", first["id"])
    await draw()
    found = await _get(account)
    names = "credit", "charged", "held", "available", "spent", "currency"
    assert [found[name] for name in names] == ["0.2", "0.2", "0", "0", "0.2", "USD"]
    charges = await _get(account, "/charges?group_by=day")
    assert sum(Fraction(each["from_credit"]) for each in charges) == Fraction("0.2")
    assert [(each["kind"], each["amount"]) for each in await _get(account, "/entries")] == [
        ("refund", "0.05"),
        ("grant", "0.15"),
    ]


async def test_a_new_account_begins_with_the_trial_credit(start: Start, database: asyncpg.Connection) -> None:
    client = await start(trial_credit="2.50", public_url="http://console.test")
    account = await sign_up(client)
    found = await _get(account)
    assert (found["credit"], found["available"]) == ("2.5", "2.5")
    [entry] = await _get(account, "/entries")
    assert (entry["kind"], entry["reference"]) == ("grant", f"trial:{account.account_id}")
    async with new_browser(client) as browser:
        email = new_email()
        assert (await browser.sign_up(email=email)).status == 200
    in_console = "select credit from balances join users on account_id = 'acc_' || substr(id, 5) where email = $1"
    assert await database.fetchval(in_console, email) == 2_500_000
