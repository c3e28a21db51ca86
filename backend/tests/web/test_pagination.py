"""Lists in pages: bounds of `limit`, cursors that only the server can write, no row repeated or skipped."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import httpx2
import pytest
from app.core.cursor import Cursor
from tests.harness import Account, Key, sign_up

PUBLIC_URL = "https://pictures.test"
KEYS = 7
PAGES_MAX = 30

WRONG_LIMITS = ["0", "-1", "101", "1_0", "+1", "%201", "1%20", "1.0", "1e1", "0x1", "%EF%BC%91", "%D9%A1", "%C2%B2"]
WRONG_LIMITS += ["", "null", "NaN", "9" * 9, "9" * 30, "9" * 5000, "1%00", "limit", "true", "[1]"]


def encoded(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode()


KEY_ID = "key_28fm63cjp43w44255s68"
WRONG_CURSORS = {
    "empty": "",
    "garbage": "garbage",
    "no base64": "%F0%9F%8D%8C",
    "NUL": "%00",
    "an id": KEY_ID,
    "no JSON": urlsafe_b64encode(b"{").decode(),
    "no UTF-8": urlsafe_b64encode(b"\xff\xff").decode(),
    "null": encoded(None),
    "number": encoded(1),
    "object": encoded({"a": 1, "b": 2}),
    "one part": encoded(["2026-11-22T00:00:00+00:00"]),
    "three parts": encoded(["2026-11-22T00:00:00+00:00", KEY_ID, 1]),
    "no time": encoded(["yesterday", KEY_ID]),
    "time without zone": encoded(["2026-11-22T00:00:00", KEY_ID]),
    "time in another zone": encoded(["2026-11-22T00:00:00+01:00", KEY_ID]),
    "time in another spelling": encoded(["2026-11-22T00:00:00Z", KEY_ID]),
    "year 0": encoded(["0000-01-01T00:00:00+00:00", KEY_ID]),
    "year 10000": encoded(["10000-01-01T00:00:00+00:00", KEY_ID]),
    "year 999999999": encoded(["+999999999-01-01T00:00:00+00:00", KEY_ID]),
    "time as a number": encoded([1e308, KEY_ID]),
    "id as a number": encoded(["2026-11-22T00:00:00+00:00", 1]),
    "id as a list": encoded(["2026-11-22T00:00:00+00:00", ["a"]]),
    "NUL in the id": encoded(["2026-11-22T00:00:00+00:00", "key_\0"]),
    "surrogate in the id": encoded(["2026-11-22T00:00:00+00:00", "\ud800"]),
    "umlaut in the id": encoded(["2026-11-22T00:00:00+00:00", "ä"]),
    "deep": urlsafe_b64encode(b"[" * 5_000).decode(),
    "5,000 digits": urlsafe_b64encode(b"[" + b"9" * 5_000 + b", 1]").decode(),
    "blanks in the JSON": urlsafe_b64encode(f'["2026-11-22T00:00:00+00:00",  "{KEY_ID}"]'.encode()).decode(),
    "without padding": encoded(["2026-11-22T00:00:00+00:00", f"{KEY_ID}9"]).rstrip("="),
}

WRONG_QUERIES = [
    "include_revoked=maybe",
    "include_revoked=1",
    "include_revoked=yes",
    "include_revoked=True",
    "include_revoked=",
    "page=2",
    "offset=1",
    "Limit=1",
    "limit[]=1",
    "limit=1&unknown=1",
    "%00=1",
]


@pytest.fixture(scope="module")
async def account(client: httpx2.AsyncClient) -> Account:
    """An account with seven keys, two of them revoked."""
    account = await sign_up(client)
    for number in range(KEYS):
        key = await account.create_key(name=f"{number}")
        if number in {2, 5}:
            await account.revoke_key(key)
    return account


@pytest.fixture
async def three_keys_of_one_time(account: Account, database: asyncpg.Connection) -> None:
    """Three of the account's keys were created at the same time."""
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    update = "update api_keys set created_at = $1 where user_id = $2 and name in ('1', '3', '4')"
    await database.execute(update, moment, account.id)


async def page(account: Account, query: str) -> httpx2.Response:
    return await account.client.get(f"/v1/keys?{query}", headers=account.headers)


def names(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [key["name"] for key in answer.json()]


def next_url(answer: httpx2.Response) -> str | None:
    """The URL in the `Link` header, without the host; None without that header."""
    if "link" not in answer.headers:
        return None
    url, relation = answer.headers["link"].split("; ")
    assert relation == 'rel="next"'
    assert url.startswith(f"<{PUBLIC_URL}/v1/keys?")
    return str(url[1:-1].removeprefix(PUBLIC_URL))


async def walk(account: Account, query: str) -> AsyncIterator[list[str]]:
    """The names on each page, from the first page to the last."""
    url: str | None = f"/v1/keys?{query}"
    for _ in range(PAGES_MAX):
        if url:
            answer = await account.client.get(url, headers=account.headers)
            url = next_url(answer)
            yield names(answer)
    assert url is None, "the links do not end"


@pytest.mark.parametrize("limit", WRONG_LIMITS, ids=lambda limit: limit[:12])
async def test_a_limit_must_be_plain_digits_from_1_to_100(account: Account, limit: str) -> None:
    answer = await page(account, f"limit={limit}")
    assert answer.status_code == 422
    assert [error["parameter"] for error in answer.json()["errors"]] == ["limit"]


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (5, 5), (100, 5)])
async def test_a_page_has_at_most_limit_rows(account: Account, limit: int, count: int) -> None:
    assert len(names(await page(account, f"limit={limit}"))) == count


@pytest.mark.parametrize("cursor", WRONG_CURSORS.values(), ids=WRONG_CURSORS)
async def test_a_cursor_that_the_server_did_not_write_is_a_422(account: Account, cursor: str) -> None:
    answer = await page(account, f"cursor={cursor}")
    assert answer.status_code == 422
    assert [error["parameter"] for error in answer.json()["errors"]] == ["cursor"]


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
async def test_a_cursor_at_the_earliest_or_latest_time_is_accepted(account: Account, moment: datetime) -> None:
    answer = await page(account, f"cursor={Cursor(moment, KEY_ID)}")
    assert len(names(answer)) == (5 if moment.year > 1 else 0)


@pytest.mark.parametrize("query", WRONG_QUERIES)
async def test_an_unknown_or_malformed_parameter_is_a_422_and_not_ignored(account: Account, query: str) -> None:
    assert (await page(account, query)).status_code == 422


@pytest.mark.usefixtures("three_keys_of_one_time")
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7, 8])
async def test_the_links_lead_to_every_key_once_newest_first(account: Account, limit: int) -> None:
    for query, shown in (("", KEYS - 2), ("&include_revoked=false", KEYS - 2), ("&include_revoked=true", KEYS)):
        [everything] = [rows async for rows in walk(account, f"limit=100{query}")]
        pages = [rows async for rows in walk(account, f"limit={limit}{query}")]
        assert len(everything) == shown
        assert [name for rows in pages for name in rows] == everything
        assert [len(rows) for rows in pages[:-1]] == [limit] * (len(pages) - 1)
        assert 1 <= len(pages[-1]) <= limit
        assert set(everything[-3:]) == {"1", "3", "4"}


async def test_keys_are_listed_newest_first(client: httpx2.AsyncClient) -> None:
    account = await sign_up(client)
    made = [(await account.create_key(name=f"{number}")).id for number in range(4)]
    listed = (await page(account, "")).json()
    assert [key["id"] for key in listed] == made[::-1]
    assert "link" not in (await page(account, "limit=4")).headers


async def test_rows_that_stay_are_neither_repeated_nor_skipped_while_others_are_inserted_and_deleted(
    client: httpx2.AsyncClient,
) -> None:
    account = await sign_up(client)
    keys = [await account.create_key(name=f"{number:02}") for number in range(12)]
    to_revoke: list[Key] = keys[1::2]
    seen: list[str] = []
    async for rows in walk(account, "limit=2"):
        seen += rows
        await account.create_key(name="new")
        for index in (-1, 0):  # one from a page that has been read, one from a page still to come
            if to_revoke:
                await account.revoke_key(to_revoke.pop(index))
    assert [name for name in seen if int(name) % 2 == 0] == ["10", "08", "06", "04", "02", "00"]
    assert len(seen) == len(set(seen))


async def test_a_cursor_of_one_account_shows_none_of_its_rows_to_another(
    account: Account, other_account: Account
) -> None:
    url = next_url(await page(account, "limit=1"))
    assert url
    assert names(await other_account.client.get(url, headers=other_account.headers)) == []
