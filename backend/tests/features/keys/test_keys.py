"""API keys: their form, that they are shown once, their list and their revocation."""

import asyncio
import re
from datetime import UTC, datetime
from hashlib import sha256

import asyncpg
import httpx2
import pytest
from tests.harness import JSON, Account, Key, as_seen, everything_stored, generate, post, until_waited_for

FIELDS = {"id", "name", "environment", "prefix", "created_at", "last_used_at", "revoked_at", "cap"}
UNKNOWN_ID = "key_00000000000000000000"


async def _create(account: Account, **fields: object) -> httpx2.Response:
    return await post(account.client, "/v1/keys", {"name": "a key", **fields}, headers=account.headers)


async def _list(account: Account, **query: str) -> list[JSON]:
    answer = await account.client.get("/v1/keys", params=query, headers=account.headers)
    assert answer.status_code == 200, answer.text
    rows: list[JSON] = answer.json()
    return rows


async def _revoke(account: Account, key_id: str) -> httpx2.Response:
    return await account.client.delete(f"/v1/keys/{key_id}", headers=account.headers)


def _pointers(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_a_new_key_has_the_format_and_the_prefix_of_the_contract(account: Account, environment: str) -> None:
    answer = await _create(account, environment=environment)
    body: JSON = answer.json()
    assert answer.status_code == 201
    assert set(body) == FIELDS | {"key"}
    assert re.fullmatch(rf"nb_{environment}_[0-9a-f]{{32}}", body["key"])
    assert body["prefix"] == body["key"][:16]
    assert re.fullmatch(r"key_[0-9a-z]{20}", body["id"])
    assert (body["name"], body["environment"]) == ("a key", environment)
    assert (body["last_used_at"], body["revoked_at"]) == (None, None)
    assert body["created_at"].endswith("Z")


async def test_a_key_is_live_by_default(account: Account) -> None:
    assert (await _create(account)).json()["environment"] == "live"


async def test_no_two_keys_are_the_same_whatever_their_names(account: Account) -> None:
    assert len({(await _create(account)).json()["key"] for _ in range(5)}) == 5


@pytest.mark.parametrize("environment", ["LIVE", "Live", "production", "", " live", None, True, ["live"]])
async def test_there_are_two_environments(account: Account, environment: object) -> None:
    assert _pointers(await _create(account, environment=environment)) == ["#/environment"]


@pytest.mark.parametrize("field", ["key", "id", "prefix", "key_hash", "user_id", "is_suspended", "revoked_at"])
async def test_creating_a_key_accepts_no_other_fields(account: Account, field: str) -> None:
    chosen = "nb_live_" + "0" * 32
    answer = await _create(account, **{field: chosen})
    assert _pointers(answer) == ["#"]
    assert chosen not in answer.text
    assert await _list(account) == []


@pytest.mark.parametrize("name", ["a", "a" * 100, "\U0001f34c" * 100, " first key ", "<b>'\"; drop table users --"])
async def test_a_name_of_1_to_100_characters_is_stored_unchanged(account: Account, name: str) -> None:
    assert (await _create(account, name=name)).json()["name"] == name
    assert [key["name"] for key in await _list(account)] == [name]


@pytest.mark.parametrize(
    "name",
    ["", " ", "\u00a0\u2003", "a" * 101, "a\nb", "a\tb", "a\x7fb", "a\x85b", "a\u2028b", "a\0b", "a\ud800b", None, 1],
)
async def test_any_other_name_is_refused(account: Account, name: object) -> None:
    assert _pointers(await _create(account, name=name)) == ["#/name"]
    assert await _list(account) == []


async def test_a_key_needs_a_name(account: Account) -> None:
    assert _pointers(await post(account.client, "/v1/keys", {}, headers=account.headers)) == ["#/name"]


async def test_the_raw_key_is_shown_once_and_only_its_hash_is_stored(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    answers = [
        await generate(client, key),
        await client.get("/v1/keys", headers=account.headers),
        await client.get("/v1/auth/me", headers=account.headers),
        await _revoke(account, key.id),
        await client.get("/v1/keys?include_revoked=true", headers=account.headers),
        await generate(client, key),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 204, 200, 401]
    secret = key.raw[16:]
    assert not [answer for answer in answers if secret in answer.text or secret in str(answer.headers)]
    stored = await everything_stored(database)
    assert secret not in stored
    assert secret.encode().hex() not in stored
    assert (
        await database.fetchval("select key_hash from api_keys where id = $1", key.id)
        == sha256(key.raw.encode()).digest()
    )


async def test_the_list_is_newest_first_with_exactly_the_documented_fields(account: Account) -> None:
    created = [(await _create(account, name=f"key {n}")).json() for n in range(5)]
    listed = await _list(account)
    assert listed == [{name: value for name, value in key.items() if name != "key"} for key in reversed(created)]
    assert all(set(key) == FIELDS for key in listed)


async def test_an_account_without_keys_has_an_empty_list(account: Account) -> None:
    assert await _list(account) == []


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=1_0", "limit=-1", "include_revoked=yes", "user_id=1"])
async def test_an_invalid_query_is_refused(account: Account, query: str) -> None:
    answer = await account.client.get(f"/v1/keys?{query}", headers=account.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


async def test_revoked_keys_are_listed_only_on_request(account: Account) -> None:
    kept, revoked = await account.create_key(), await account.create_key()
    await account.revoke_key(revoked)
    assert [key["id"] for key in await _list(account)] == [kept.id]
    shown = await _list(account, include_revoked="true")
    assert [(key["id"], key["revoked_at"] is None) for key in shown] == [(revoked.id, False), (kept.id, True)]
    revoked_at = datetime.fromisoformat(shown[0]["revoked_at"])
    assert shown[0]["revoked_at"].endswith("Z")
    assert datetime.fromisoformat(shown[0]["created_at"]) < revoked_at <= datetime.now(UTC)


async def test_a_second_revocation_is_404_and_keeps_the_time_of_the_first(
    account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    first = await _revoke(account, key.id)
    assert (first.status_code, first.content) == (204, b"")
    revoked_at = await database.fetchval("select revoked_at from api_keys where id = $1", key.id)
    second = await _revoke(account, key.id)
    assert (second.status_code, second.json()["code"]) == (404, "key_not_found")
    assert await database.fetchval("select revoked_at from api_keys where id = $1", key.id) == revoked_at


@pytest.mark.parametrize(
    "key_id",
    [
        "not-an-id",
        "key_",
        "key_0",
        "key_0000000000000000000O",
        "usr_00000000000000000000",
        "KEY_00000000000000000000",
        "%20key_00000000000000000000",
        "%F0%9F%8D%8C",
        "%FF",
        "%27%20or%201=1%20--",
        "0" * 5000,
    ],
)
async def test_an_invalid_id_is_404_like_an_unknown_key(account: Account, key_id: str) -> None:
    unknown, malformed = await _revoke(account, UNKNOWN_ID), await _revoke(account, key_id)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "key_not_found")
    assert as_seen(malformed) == as_seen(unknown)


@pytest.mark.parametrize("character", ["%00", "%0A", "%0D%0A", "%7F"])
async def test_an_id_with_a_control_character_is_404_and_revokes_nothing(account: Account, character: str) -> None:
    key = await account.create_key()
    answers = [await _revoke(account, key_id + character) for key_id in (key.id, UNKNOWN_ID, "")]
    assert (answers[0].status_code, answers[0].json()["code"]) == (404, "not_found")
    assert [as_seen(answer) for answer in answers] == [as_seen(answers[0])] * 3
    assert [each["id"] for each in await _list(account)] == [key.id]


async def test_a_revoked_key_is_refused_at_once(client: httpx2.AsyncClient, account: Account) -> None:
    key, other = await account.create_key(), await account.create_key()
    assert (await generate(client, key)).status_code == 200
    await account.revoke_key(key)
    answer = await generate(client, key)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    assert answer.json()["detail"] == "Invalid API key"
    assert answer.headers["www-authenticate"] == 'Bearer realm="nanobanana", error="invalid_token"'
    assert (await generate(client, other)).status_code == 200


async def test_a_key_that_was_revoked_before_its_first_call_is_refused_like_an_unknown_one(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    await account.revoke_key(key)
    unknown = as_seen(await generate(client, Key("", "nb_live_" + "0" * 32)))
    assert as_seen(await generate(client, key)) == unknown
    assert as_seen(await generate(client, key, size="0x0")) == unknown, "before the body is looked at"
    assert "ratelimit" not in unknown[1]


async def test_a_suspended_key_is_refused_before_its_body_is_validated(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    await database.execute("update api_keys set is_suspended = true where id = $1", key.id)
    answer = await generate(client, key, size="0x0")
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")


async def test_no_key_is_created_for_an_account_that_is_disabled_meanwhile(
    account: Account, database: asyncpg.Connection
) -> None:
    async with database.transaction():
        await database.execute("update users set is_active = false where id = $1", account.id)
        creation = asyncio.ensure_future(_create(account))
        await until_waited_for(database)
    answer = await creation
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert await database.fetchval("select count(*) from api_keys where user_id = $1", account.id) == 0


def _spelled(key: Key) -> dict[str, str]:
    digest = sha256(key.raw.encode())
    return {
        "upper case": key.raw.upper(),
        "upper-case digits": key.raw[:8] + key.raw[8:].upper(),
        "31 digits": key.raw[:-1],
        "33 digits": key.raw + "0",
        "other environment": key.raw.replace("nb_live_", "nb_test_"),
        "the hash": digest.hexdigest(),
        "the hash as digits": f"nb_live_{digest.hexdigest()[:32]}",
        "the prefix": key.raw[:16],
        "the id": key.id,
        "another prefix": key.raw.replace("nb_", "sk_"),
        "quoted": f'"{key.raw}"',
        "two": f"{key.raw} {key.raw}",
        "with a comma": f"{key.raw},",
        "unknown": "nb_live_" + "0" * 32,
        "long": "nb_live_" + "0" * 5000,
    }


async def test_only_the_exact_text_of_a_key_is_accepted(client: httpx2.AsyncClient, account: Account) -> None:
    key = await account.create_key()
    wrong = {name: await generate(client, Key("", raw)) for name, raw in _spelled(key).items() if raw != key.raw}
    seen = {name: as_seen(answer) for name, answer in wrong.items()}
    assert seen == dict.fromkeys(_spelled(key), seen["unknown"])
    assert (wrong["unknown"].status_code, wrong["unknown"].json()["detail"]) == (401, "Invalid API key")
    assert (await generate(client, key)).status_code == 200


async def test_a_call_without_a_key_is_401_and_its_challenge_has_no_error_parameter(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.post("/v1/generate", json={"prompt": "A cute banana"})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="nanobanana"'


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("GET", ""), ("DELETE", f"/{UNKNOWN_ID}")])
async def test_keys_are_managed_with_the_login_token_only(
    client: httpx2.AsyncClient, account: Account, method: str, path: str
) -> None:
    key = await account.create_key()
    for headers in ({}, key.headers, {"Authorization": "Basic YTpi"}):
        answer = await client.request(method, f"/v1/keys{path}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert [each["id"] for each in await _list(account)] == [key.id]
