"""Two accounts: whatever belongs to one does not exist for the other."""

import re

import asyncpg
import httpx2
import pytest
from tests.features.uploads.test_uploads import uploaded
from tests.harness import JSON, Account, Key, as_seen, generate

UNKNOWN = {"key": f"key_{'0' * 20}", "generation": f"gen_{'0' * 30}", "upload": f"upl_{'0' * 30}"}

PRIVATE = [
    ("delete", "/v1/generations/{generation_id}"),
    ("delete", "/v1/keys/{key_id}"),
    ("delete", "/v1/uploads/{upload_id}"),
    ("put", "/v1/keys/{key_id}/cap"),
    ("get", "/v1/generations/{generation_id}"),
    ("get", "/v1/generations/{generation_id}/events"),
    ("post", "/v1/generations/{generation_id}/cancel"),
    ("get", "/v1/uploads/{upload_id}"),
]
"""Every operation that names a thing of an account. A new one belongs here."""

PRIVATE_QUERIES = [("get", "/v1/usage?key_id={key_id}")]
"""Every operation whose query names one."""

WITH_A_KEY = {
    *(f"/v1/generations/{{generation_id}}{end}" for end in ("", "/events", "/cancel")),
    "/v1/uploads/{upload_id}",
}

CAPABILITY_URLS = [("get", "/v1/images/{generation_id}.{extension}")]
"""Operations whose id is itself the permission."""

SHARED = [
    ("get", "/v1/models/{model_id}"),
    ("get", "/v1beta/models/{model}"),
    *[("post", f"/v1beta/models/{{model}}:{each}") for each in ("generateContent", "streamGenerateContent", "predict")],
]
"""Operations whose id names what all accounts share."""


@pytest.fixture
async def key(other_account: Account) -> Key:
    """A key of somebody else."""
    return await other_account.create_key()


async def _call(account: Account, method: str, path: str, ids: dict[str, str]) -> httpx2.Response:
    """As the account, with its login token or with a key of its own, whichever the operation takes."""
    target = re.sub(r"\{(\w+)_id\}", lambda match: ids[match[1]], path)
    headers = (await account.create_key()).headers if path in WITH_A_KEY else account.headers
    body = {"amount": "5"} if method == "put" else None
    return await account.client.request(method, target, headers=headers, json=body)


async def test_every_operation_with_an_id_is_tried_here(client: httpx2.AsyncClient) -> None:
    paths: JSON = (await client.get("/openapi.json")).json()["paths"]
    with_id = [(method, path) for path, methods in paths.items() if "{" in path for method in methods]
    assert sorted(with_id) == sorted(PRIVATE + CAPABILITY_URLS + SHARED)


async def test_every_query_with_an_id_is_tried_here(client: httpx2.AsyncClient) -> None:
    paths: JSON = (await client.get("/openapi.json")).json()["paths"]
    named = [
        (method, f"{path}?{parameter['name']}={{{parameter['name']}}}")
        for path, methods in paths.items()
        for method, operation in methods.items()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query" and parameter["name"].endswith("_id")
    ]
    assert sorted(named) == sorted(PRIVATE_QUERIES)


@pytest.mark.parametrize(("method", "path"), PRIVATE + PRIVATE_QUERIES)
async def test_what_belongs_to_somebody_else_is_404_byte_for_byte_like_what_never_was(
    account: Account, key: Key, method: str, path: str
) -> None:
    generated = (await generate(account.client, key)).json()["id"]
    foreign = {"key": key.id, "generation": generated, "upload": await uploaded(account.client, key)}
    seen = [as_seen(await _call(account, method, path, ids)) for ids in (foreign, UNKNOWN, foreign)]
    assert seen[0][0] == 404
    assert seen == [seen[0]] * 3


async def test_nobody_revokes_somebody_elses_key(
    client: httpx2.AsyncClient, account: Account, other_account: Account, key: Key
) -> None:
    assert (await _call(account, "delete", "/v1/keys/{key_id}", {"key": key.id})).status_code == 404
    assert (await generate(client, key)).status_code == 200
    await other_account.revoke_key(key)
    revoked = await _call(account, "delete", "/v1/keys/{key_id}", {"key": key.id})
    assert as_seen(revoked) == as_seen(await _call(account, "delete", "/v1/keys/{key_id}", UNKNOWN))


@pytest.mark.parametrize("query", ["", "?include_revoked=true", "?limit=100"])
async def test_a_list_holds_nothing_of_somebody_else(
    account: Account, other_account: Account, key: Key, query: str
) -> None:
    mine, revoked = await account.create_key(), await other_account.create_key()
    await other_account.revoke_key(revoked)
    listed = (await account.client.get(f"/v1/keys{query}", headers=account.headers)).json()
    assert [each["id"] for each in listed] == [mine.id]
    assert key.id not in str(listed)


async def test_usage_and_generations_hold_nothing_of_somebody_else(
    client: httpx2.AsyncClient, account: Account, key: Key
) -> None:
    mine = await account.create_key()
    theirs = (await generate(client, key)).json()["id"]
    assert (await client.get("/v1/usage", headers=account.headers)).json() == []
    assert (await client.get("/v1/generations", headers=mine.headers)).json() == []
    made = (await generate(client, mine)).json()["id"]
    assert [row["key_id"] for row in (await client.get("/v1/usage", headers=account.headers)).json()] == [mine.id]
    assert [row["id"] for row in (await client.get("/v1/generations", headers=mine.headers)).json()] == [made]
    assert theirs not in (await client.get("/v1/generations?limit=100", headers=mine.headers)).text


async def test_somebody_elses_cursor_leads_to_ones_own_keys_only(account: Account, other_account: Account) -> None:
    mine = await account.create_key()
    for _ in range(3):
        await other_account.create_key()
    page = await account.client.get("/v1/keys?limit=1", headers=other_account.headers)
    query = page.links["next"]["url"].partition("?")[2]
    listed = (await account.client.get(f"/v1/keys?{query}", headers=account.headers)).json()
    assert [each["id"] for each in listed] == [mine.id]


async def test_each_token_shows_its_own_account(account: Account, other_account: Account) -> None:
    for each in (account, other_account):
        shown = (await each.client.get("/v1/auth/me", headers=each.headers)).json()
        assert (shown["id"], shown["email"]) == (each.id, each.email)


async def test_a_key_is_used_in_the_name_of_its_own_account_only(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    mine = await account.create_key()
    generated = (await generate(client, mine)).json()["id"]
    assert await database.fetchval("select key_id from generations where id = $1", generated) == mine.id
    assert await database.fetchval("select last_used_at from api_keys where id = $1", key.id) is None
    assert await database.fetchval("select count(*) from usage where key_id = $1", key.id) == 0


async def test_disabling_one_account_leaves_the_other_alone(
    client: httpx2.AsyncClient, account: Account, other_account: Account, key: Key, database: asyncpg.Connection
) -> None:
    await database.execute("update users set is_active = false where id = $1", account.id)
    assert (await client.get("/v1/keys", headers=account.headers)).status_code == 401
    assert (await client.get("/v1/keys", headers=other_account.headers)).status_code == 200
    assert (await generate(client, key)).status_code == 200
