"""`GET /v1/generations`: what an account generated in an environment, for whoever holds one of its keys there."""

import asyncio
import re
from typing import NamedTuple

import asyncpg
import httpx2
import pytest
from tests.harness import JSON, Account, Key, as_seen, generate
from tests.problems import check_problem

PUBLIC_URL = "https://pictures.test"
FIELDS = {
    *("id", "url", "prompt", "model", "size", "quality", "format", "price", "currency", "environment", "key_id"),
    *("created_at", "images", "status", "started_at", "delivered_at", "expires_at", "error"),
}
UNKNOWN_ID = f"gen_{'0' * 30}"
UNDELIVERED = """
    update generations set status = $2, error = $3, delivered_at = null,
    lease_until = case when $2 in ('queued', 'processing') then now() + interval '1 day' end where id = $1
"""


@pytest.fixture
async def key(account: Account) -> Key:
    """A key that nobody has used."""
    return await account.create_key()


async def _make(client: httpx2.AsyncClient, key: Key, **body: object) -> str:
    answer = await generate(client, key, **body)
    assert answer.status_code == 200, answer.text
    made: str = answer.json()["id"]
    return made


async def _list(client: httpx2.AsyncClient, key: Key, query: str = "") -> list[JSON]:
    answer = await client.get(f"/v1/generations{query}", headers=key.headers)
    assert answer.status_code == 200, answer.text
    rows: list[JSON] = answer.json()
    return rows


async def _ids(client: httpx2.AsyncClient, key: Key, query: str = "") -> list[str]:
    return [row["id"] for row in await _list(client, key, query)]


async def _one(client: httpx2.AsyncClient, key: Key, generation_id: str) -> httpx2.Response:
    return await client.get(f"/v1/generations/{generation_id}", headers=key.headers)


def _next(answer: httpx2.Response) -> str | None:
    url = answer.links.get("next", {}).get("url")
    return url.removeprefix(PUBLIC_URL) if url else None


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_a_generation_has_exactly_the_fields_of_the_contract(
    client: httpx2.AsyncClient, account: Account, environment: str
) -> None:
    key = await account.create_key(environment=environment)
    made: JSON = (await generate(client, key, prompt=" A \U0001f34c\n", size="64x128")).json()
    listed = {**made, "environment": environment, "key_id": key.id, "status": "delivered", "error": None}
    listed |= {"started_at": None, "delivered_at": made["created_at"], "expires_at": None}
    assert set(listed) == FIELDS
    outputs = [{"id": made["id"], "url": made["url"], "status": "delivered", "error": None}]
    expected = {**listed, "position": None, "outputs": outputs}
    assert made["prompt"] == " A \U0001f34c\n"
    assert (await _one(client, key, made["id"])).json() == expected
    assert await _list(client, key) == [listed]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", expected["created_at"])


async def test_a_key_that_has_made_nothing_lists_nothing(client: httpx2.AsyncClient, key: Key) -> None:
    assert await _list(client, key) == []


async def test_all_of_the_accounts_keys_are_listed_together_newest_first(
    client: httpx2.AsyncClient, account: Account
) -> None:
    keys = [await account.create_key() for _ in range(3)]
    made = {await _make(client, keys[n % 3]): keys[n % 3].id for n in range(7)}
    newest_first = sorted(made.items(), reverse=True)
    for key in keys:
        assert [(row["id"], row["key_id"]) for row in await _list(client, key)] == newest_first
    await account.revoke_key(keys[0])
    rows = await _list(client, keys[1])
    assert [(row["id"], row["key_id"]) for row in rows] == newest_first, "what a revoked key made stays"


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_repeat_and_skip_nothing_while_new_ones_are_made(
    client: httpx2.AsyncClient, account: Account, limit: int
) -> None:
    keys = [await account.create_key() for _ in range(2)]
    made = [await _make(client, keys[n % 2]) for n in range(7)]
    url, pages = f"/v1/generations?limit={limit}", list[list[str]]()
    while url:
        answer = await client.get(url, headers=keys[0].headers)
        pages.append([row["id"] for row in answer.json()])
        await _make(client, keys[1])
        url = _next(answer) or ""
    assert [generation_id for page in pages for generation_id in page] == sorted(made, reverse=True)
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


async def test_a_page_has_twenty_rows_unless_it_is_asked_for_otherwise(client: httpx2.AsyncClient, key: Key) -> None:
    await asyncio.gather(*(_make(client, key) for _ in range(21)))
    lengths = {query: len(await _list(client, key, query)) for query in ("", "?limit=1", "?limit=21", "?limit=100")}
    assert lengths == {"": 20, "?limit=1": 1, "?limit=21": 21, "?limit=100": 21}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=a", "cursor=garbage", "key_id=key_", "page=2"])
async def test_other_queries_are_refused(client: httpx2.AsyncClient, key: Key, query: str) -> None:
    answer = await client.get(f"/v1/generations?{query}", headers=key.headers)
    check_problem(answer, 422, "validation_error", more={"errors"})


async def test_what_is_of_another_account_or_environment_is_like_what_never_was(
    client: httpx2.AsyncClient, account: Account, other_account: Account, key: Key
) -> None:
    test_key, foreign_key = await account.create_key(environment="test"), await other_account.create_key()
    made = {each: await _make(client, each) for each in (key, test_key, foreign_key)}
    unknown = await _one(client, key, UNKNOWN_ID)
    check_problem(unknown, 404, "generation_not_found")
    for each, mine in made.items():
        assert await _ids(client, each) == [mine]
        assert (await _one(client, each, mine)).json()["id"] == mine
        for other in set(made.values()) - {mine}:
            assert as_seen(await _one(client, each, other)) == as_seen(unknown)


@pytest.mark.parametrize(
    "generation_id", ["gen_", "gen_0", f"gen_{'O' * 30}", f"key_{'0' * 30}", "%20", "%F0%9F%8D%8C", "%FF", "0" * 5000]
)
async def test_what_is_not_an_id_is_404_like_an_unknown_generation(
    client: httpx2.AsyncClient, key: Key, generation_id: str
) -> None:
    assert as_seen(await _one(client, key, generation_id)) == as_seen(await _one(client, key, UNKNOWN_ID))


async def test_a_cursor_from_one_account_shows_nothing_of_it_to_another(
    client: httpx2.AsyncClient, other_account: Account, key: Key
) -> None:
    for _ in range(2):
        await _make(client, key)
    url = _next(await client.get("/v1/generations?limit=1", headers=key.headers))
    assert url
    stranger = await other_account.create_key()
    assert (await client.get(url, headers=stranger.headers)).json() == []


class End(NamedTuple):
    """The status and the error code of a row, and the code that its caller is told."""

    status: str
    code: str | None
    told: str | None


@pytest.mark.parametrize(
    "end",
    [
        End("processing", None, None),
        End("failed", "provider_timeout", "provider_timeout"),
        End("failed", "a_code_of_another_version", "internal_error"),
        End("lost", None, "lost"),
        End("cancelled", "key_revoked", "key_revoked"),
    ],
)
async def test_what_was_not_delivered_is_shown_as_what_it_is_and_listed_by_its_status(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, end: End
) -> None:
    status, code, told = end
    other, delivered = await _make(client, key), await _make(client, key)
    await database.execute(UNDELIVERED, other, status, code)
    assert await _ids(client, key) == [delivered]
    assert await _ids(client, key, f"?status={status}") == [other]
    assert await _ids(client, key, f"?status={status},delivered") == [delivered, other]
    shown = (await _one(client, key, other)).json()
    assert (shown["status"], shown["url"], (shown["error"] or {}).get("code")) == (status, None, told)
    assert (await client.get(f"/v1/images/{other}.png")).status_code == 404


@pytest.mark.parametrize(
    "wanted", ["failed,queued", "delivered,lost", "processing,cancelled,failed", "queued,processing,delivered,lost"]
)
async def test_generations_of_several_statuses_are_one_list_in_pages(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, wanted: str
) -> None:
    statuses = "queued", "processing", "failed", "lost", "cancelled", "failed", "queued", "delivered"
    made = {await _make(client, key): status for status in statuses}
    for each, status in made.items():
        if status != "delivered":
            await database.execute(UNDELIVERED, each, status, None)
    url, listed = f"/v1/generations?status={wanted}&limit=2", list[tuple[str, str]]()
    while url:
        answer = await client.get(url, headers=key.headers)
        listed += [(row["id"], row["status"]) for row in answer.json()]
        url = _next(answer) or ""
    assert listed == sorted(((each, of_it) for each, of_it in made.items() if of_it in wanted.split(",")), reverse=True)


async def test_a_key_that_is_stopped_is_refused_at_once(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    made, other = await _make(client, key), await account.create_key()
    assert await _ids(client, key) == [made]
    await account.revoke_key(key)
    for answer in (await client.get("/v1/generations", headers=key.headers), await _one(client, key, made)):
        check_problem(answer, 401, "invalid_api_key")
    assert await _ids(client, other) == [made]
    await database.execute("update api_keys set is_suspended = true where id = $1", other.id)
    check_problem(await client.get("/v1/generations", headers=other.headers), 401, "invalid_api_key")


async def test_generations_are_told_for_an_api_key_only(client: httpx2.AsyncClient, account: Account, key: Key) -> None:
    made = await _make(client, key)
    for headers in ({}, account.headers, {"Authorization": f"Basic {key.raw}"}):
        for path in ("", f"/{made}", f"/{UNKNOWN_ID}", "?limit=0"):
            check_problem(await client.get(f"/v1/generations{path}", headers=headers), 401, "invalid_api_key")
