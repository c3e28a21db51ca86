"""`GET /v1/usage`: how many images each key delivered on each UTC day, for its own account only."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import httpx2
import pytest
from app.assembly import Externals
from app.core.settings import Settings
from tests.harness import JSON, PASSWORD, Account, Clock, Key, as_seen, generate, running
from tests.problems import check_problem

PUBLIC_URL = "https://pictures.test"
UNKNOWN_KEY_ID = f"key_{'0' * 20}"
TODAY = date(2026, 3, 1)
LAST_SECOND = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC).timestamp()


async def _usage(account: Account, **query: object) -> list[JSON]:
    answer = await account.client.get("/v1/usage", params=_named(query), headers=account.headers)
    assert answer.status_code == 200, answer.text
    rows: list[JSON] = answer.json()
    return rows


def _named(query: dict[str, object]) -> dict[str, str]:
    return {name.removesuffix("_"): str(value) for name, value in query.items()}


async def _refused(account: Account, **query: object) -> list[str]:
    answer = await account.client.get("/v1/usage", params=_named(query), headers=account.headers)
    check_problem(answer, 422, "validation_error", more={"errors"})
    return [error["parameter"] for error in answer.json()["errors"]]


async def _count(database: asyncpg.Connection, key: Key, **pictures: int) -> None:
    """Writes the counters of these images: `_2026_03_01=7`."""
    rows = [(key.id, date.fromisoformat(day[1:].replace("_", "-")), count) for day, count in pictures.items()]
    await database.executemany("insert into usage values ($1, $2, $3)", rows)


async def _all_pages(account: Account, query: str) -> list[list[JSON]]:
    target, pages = f"/v1/usage?{query}", list[list[JSON]]()
    while target:
        answer = await account.client.get(target, headers=account.headers)
        pages.append(answer.json())
        target = answer.links.get("next", {}).get("url", "").removeprefix(PUBLIC_URL)
    return pages


@pytest.fixture
async def on_the_first_of_march(settings: Settings, account: Account) -> AsyncIterator[Account]:
    """The account, on an application whose clock is the last second of 2026-03-01, UTC."""
    async with running(settings, Externals(clock=Clock(LAST_SECOND))) as client:
        answer = await client.post("/v1/auth/login", json={"email": account.email, "password": PASSWORD})
        yield Account(client, account.id, account.email, answer.json()["access_token"])


async def test_a_usage_row_has_exactly_the_documented_fields_and_names_its_environment(
    client: httpx2.AsyncClient, account: Account
) -> None:
    live, test = await account.create_key(), await account.create_key(environment="test")
    days = []
    for key, times in ((live, 2), (test, 3)):
        for _ in range(times):
            answer = await generate(client, key)
            assert answer.status_code == 200
            days.append(answer.json()["created_at"][:10])
    rows = await _usage(account)
    assert all(
        set(row) == {"date", "key_id", "environment", "model", "images", "list_amount", "amount", "currency"}
        for row in rows
    )
    assert {row["date"] for row in rows} == set(days)
    counted = {(row["key_id"], row["environment"]): 0 for row in rows}
    for row in rows:
        counted[row["key_id"], row["environment"]] += row["images"]
    assert counted == {(live.id, "live"): 2, (test.id, "test"): 3}


async def test_an_account_that_has_used_nothing_has_no_rows(account: Account) -> None:
    await account.create_key()
    assert await _usage(account) == []


async def test_a_revoked_keys_usage_stays(account: Account, database: asyncpg.Connection) -> None:
    key = await account.create_key()
    await _count(database, key, _2026_01_01=5)
    await account.revoke_key(key)
    counted = {"date": "2026-01-01", "key_id": key.id, "environment": "live", "images": 5}
    rows = [{**counted, "model": None, "list_amount": "0", "amount": "0", "currency": None}]
    assert await _usage(account, to="2026-01-01") == await _usage(account, to="2026-01-01", key_id=key.id) == rows


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ("2026-01-02", "2026-01-04", [4, 3, 2]),
        ("2026-01-03", "2026-01-03", [3]),
        ("2026-01-06", "2026-12-31", []),
        ("0001-01-01", "9999-12-31", [5, 4, 3, 2, 1]),
    ],
)
async def test_from_and_to_are_both_included_and_the_newest_day_comes_first(
    account: Account, database: asyncpg.Connection, first: str, last: str, days: list[int]
) -> None:
    key = await account.create_key()
    await _count(database, key, **{f"_2026_01_0{day}": day for day in range(1, 6)})
    rows = await _usage(account, from_=first, to=last)
    assert [(row["date"], row["images"]) for row in rows] == [(f"2026-01-0{day}", day) for day in days]


async def test_by_default_usage_covers_the_last_thirty_days_with_today(
    on_the_first_of_march: Account, database: asyncpg.Connection
) -> None:
    key = await on_the_first_of_march.create_key()
    await database.execute("insert into usage select $1, $2::date - n, 1 from generate_series(-1, 31) n", key.id, TODAY)
    thirty_days = [str(TODAY - timedelta(days=n)) for n in range(30)]
    assert [row["date"] for row in await _usage(on_the_first_of_march)] == thirty_days
    assert [row["date"] for row in await _usage(on_the_first_of_march, to="2026-03-02")][:1] == ["2026-03-02"]
    assert len(await _usage(on_the_first_of_march, to="2026-02-28")) == 30
    assert [row["date"] for row in await _usage(on_the_first_of_march, from_="2026-02-28")] == thirty_days[:2]


async def test_key_id_selects_the_usage_of_one_key(account: Account, database: asyncpg.Connection) -> None:
    keys = [await account.create_key() for _ in range(3)]
    for number, key in enumerate(keys):
        await _count(database, key, _2026_01_01=number)
    for number, key in enumerate(keys):
        rows = await _usage(account, to="2026-01-01", key_id=key.id)
        assert [(row["key_id"], row["images"]) for row in rows] == [(key.id, number)]
    assert len(await _usage(account, to="2026-01-01")) == 3


async def test_another_accounts_key_is_404_byte_for_byte_like_an_unknown_one(
    client: httpx2.AsyncClient, account: Account, other_account: Account
) -> None:
    key = await other_account.create_key()
    assert (await generate(client, key)).status_code == 200
    ids = [UNKNOWN_KEY_ID, key.id, "key_", "", "%00", "a" * 1000, key.raw]
    answers = [await client.get("/v1/usage", params={"key_id": each}, headers=account.headers) for each in ids]
    check_problem(answers[0], 404, "key_not_found")
    assert [as_seen(answer) for answer in answers] == [as_seen(answers[0])] * len(ids)


async def test_an_account_sees_only_its_own_usage(
    account: Account, other_account: Account, database: asyncpg.Connection
) -> None:
    keys = [await account.create_key(), await other_account.create_key()]
    for number, key in enumerate(keys):
        await _count(database, key, _2026_01_01=number + 1)
    for number, each in enumerate((account, other_account)):
        rows = await _usage(each, from_="2026-01-01", to="2026-01-01")
        assert [(row["key_id"], row["images"]) for row in rows] == [(keys[number].id, number + 1)]


async def test_days_in_the_wrong_order_are_refused(account: Account) -> None:
    assert await _refused(account, from_="2026-01-02", to="2026-01-01") == ["from"]
    assert await _refused(account, from_="9999-12-31") == ["from"]


async def test_thirty_days_that_begin_before_the_first_date_of_the_calendar_are_cut_off(
    account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    await _count(database, key, _0001_01_01=1, _0001_01_30=2)
    days = {last: [row["date"] for row in await _usage(account, to=last)] for last in ("0001-01-01", "0001-01-30")}
    assert days == {"0001-01-01": ["0001-01-01"], "0001-01-30": ["0001-01-30", "0001-01-01"]}
    await database.execute("delete from usage where key_id = $1", key.id)


@pytest.mark.parametrize(
    "day",
    [
        "2026-13-01",
        "2026-02-29",
        "2026-1-1",
        "2026-01-01T00:00:00Z",
        " 2026-01-01",
        "20260101",
        "2026-W01-1",
        "1700000000",
        "0",
        "-1",
        "0000-01-01",
        "10000-01-01",
        "99999999-01-01",
        "+2026-01-01",
        "\uff12\uff10\uff12\uff16-01-01",  # full-width digits
        "today",
        "null",
        "\0",
        "",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("parameter", ["from", "to"])
async def test_an_invalid_day_is_refused_and_its_parameter_is_named(account: Account, parameter: str, day: str) -> None:
    assert await _refused(account, **{parameter: day}) == [parameter]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=garbage", "From=2026-01-01", "day=2026-01-01"])
async def test_other_parameters_are_refused(account: Account, query: str) -> None:
    answer = await account.client.get(f"/v1/usage?{query}", headers=account.headers)
    check_problem(answer, 422, "validation_error", more={"errors"})


async def test_pages_keep_the_query_and_neither_repeat_nor_skip_a_row(
    account: Account, database: asyncpg.Connection
) -> None:
    keys = [await account.create_key() for _ in range(3)]
    for key in keys:
        await _count(database, key, **{f"_2026_01_0{day}": day for day in range(1, 9)})
    pages = await _all_pages(account, "from=2026-01-02&to=2026-01-06&limit=4")
    assert [len(page) for page in pages] == [4, 4, 4, 3]
    seen = [(row["date"], row["key_id"]) for page in pages for row in page]
    days = [f"2026-01-0{day}" for day in (6, 5, 4, 3, 2)]
    assert seen == [(day, key_id) for day in days for key_id in sorted((key.id for key in keys), reverse=True)]
    of_one = await _all_pages(account, f"from=2026-01-02&to=2026-01-06&limit=2&key_id={keys[0].id}")
    assert [[row["date"] for row in page] for page in of_one] == [days[:2], days[2:4], days[4:]]
    assert {row["key_id"] for page in of_one for row in page} == {keys[0].id}


async def test_usage_needs_a_login_token(client: httpx2.AsyncClient, account: Account) -> None:
    key = await account.create_key()
    for headers in ({}, key.headers, {"Authorization": "Basic YTpi"}):
        check_problem(await client.get("/v1/usage", headers=headers), 401, "invalid_token")


async def test_a_disabled_account_cannot_list_its_usage(account: Account, database: asyncpg.Connection) -> None:
    await database.execute("update users set is_active = false where id = $1", account.id)
    check_problem(await account.client.get("/v1/usage", headers=account.headers), 401, "invalid_token")
