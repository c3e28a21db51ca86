"""`Idempotency-Key`: a retry gets the first answer again, and one picture is made and counted."""

import asyncio
from datetime import timedelta

import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.features.usage.recorded import ids, locked, total, until_waiting
from tests.harness import Account, Key, as_seen, generate, post
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, head, send_raw

LONGEST = ("!" + "".join(map(chr, range(0x23, 0x7F))) * 3)[:255]
BODY = b'{"prompt":"A cute banana"}'

MALFORMED = {
    "empty": b"",
    "256 long": b"a" * 256,
    "256 long in quotes": b'"%b"' % (b"a" * 256),
    "a space": b"a b",
    "a space in quotes": b'"a b"',
    "a tab": b"a\tb",
    "a comma and a space": b"a, b",
    "UTF-8": "b\u00e4nana".encode(),
    "not UTF-8": b"\xff",
    "nothing in quotes": b'""',
    "a quote at the start": b'"a',
    "a quote at the end": b'a"',
    "a quote in the middle": b'a"b',
    "a quote in quotes": b'"a"b"',
    "only a quote": b'"',
    "single quotes around a space": b"' '",
}


@pytest.fixture
async def key(account: Account) -> Key:
    """A key that nobody has used."""
    return await account.create_key()


async def _send(client: httpx2.AsyncClient, key: Key, idempotency_key: str = "k", **body: object) -> httpx2.Response:
    headers = {**key.headers, "Idempotency-Key": idempotency_key}
    return await post(client, "/v1/generate", {"prompt": "A cute banana", **body}, headers=headers)


def _check_first(answer: httpx2.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert "idempotent-replayed" not in answer.headers


def _check_replay(answer: httpx2.Response, first: httpx2.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.content == first.content


async def test_a_retry_gets_the_first_answer_again_and_counts_nothing(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    first = await _send(client, key)
    _check_first(first)
    for _ in range(3):
        _check_replay(await _send(client, key), first)
    assert await ids(database, key) == {first.json()["id"]}
    assert await total(database, key) == 1


async def test_without_a_key_or_with_another_every_call_is_a_picture(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    answers = [await generate(client, key), await generate(client, key)]
    answers += [await _send(client, key, each) for each in ("a", "b", "A", "a.")]
    for answer in answers:
        _check_first(answer)
    assert await total(database, key) == len({answer.json()["id"] for answer in answers}) == 6


async def test_quoted_and_bare_are_the_same_key(client: httpx2.AsyncClient, key: Key) -> None:
    first = await _send(client, key, '"8e03978e-40d5-43dd-bc93-6894a57f9324"')
    _check_first(first)
    _check_replay(await _send(client, key, "8e03978e-40d5-43dd-bc93-6894a57f9324"), first)


async def test_a_key_may_have_255_visible_characters_and_all_of_them_count(
    client: httpx2.AsyncClient, key: Key
) -> None:
    first = await _send(client, key, LONGEST)
    _check_first(first)
    _check_replay(await _send(client, key, f'"{LONGEST}"'), first)
    _check_first(await _send(client, key, LONGEST[:-1]))
    _check_first(await _send(client, key, LONGEST[:-1] + "~"))


@pytest.mark.parametrize("body", [{"prompt": "A cute Banana"}, {"size": "64x64"}, {"prompt": "A cute banana "}])
async def test_the_same_key_with_another_request_is_422_and_changes_nothing(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, body: dict[str, str]
) -> None:
    first = await _send(client, key)
    reused = await _send(client, key, **body)
    check_problem(reused, 422, "idempotency_key_reused")
    assert reused.headers["x-should-retry"] == "false"
    _check_replay(await _send(client, key), first)
    assert await total(database, key) == 1


async def test_the_request_is_what_it_means_and_not_how_it_is_written(client: httpx2.AsyncClient, key: Key) -> None:
    first = await _send(client, key)
    _check_replay(await _send(client, key, size="1024x1024"), first)
    written = b' {"size" : "1024x1024",\n "prompt": "\\u0041 cute banana"}'
    headers = {**key.headers, "Idempotency-Key": "k", "Content-Type": "application/json; charset=utf-8"}
    _check_replay(await client.post("/v1/generate", content=written, headers=headers), first)


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_key_is_400_before_anything_else_is_looked_at(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, value: bytes
) -> None:
    for authorization in (key.raw, "nb_live_" + "0" * 32):
        credential = ("Authorization", f"Bearer {authorization}")
        lines = head("POST", "/v1/generate", [credential, JSON_TYPE, ("Content-Length", str(len(BODY)))])
        request = lines.removesuffix(b"\r\n") + b"Idempotency-Key: %b\r\n\r\n" % value + BODY
        check_problem(await send_raw(client, request), 400, "invalid_request")
    assert await ids(database, key) == set()


@pytest.mark.parametrize("values", [("a", "a"), ("a", "b"), ("a", ""), ('"a"', "a")], ids=str)
async def test_a_key_that_is_sent_twice_is_400(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, values: tuple[str, str]
) -> None:
    headers = [*key.headers.items(), *(("Idempotency-Key", value) for value in values)]
    answer = await client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=headers)
    check_problem(answer, 400, "invalid_request")
    assert await ids(database, key) == set()


async def test_accounts_and_environments_do_not_share_keys(
    client: httpx2.AsyncClient, account: Account, other_account: Account, key: Key, database: asyncpg.Connection
) -> None:
    keys = [key, await account.create_key(environment="test"), await other_account.create_key()]
    keys.append(await other_account.create_key(environment="test"))
    answers = [await _send(client, each, prompt=f"for {each.id}") for each in keys]
    for answer in answers:
        _check_first(answer)
    assert [await ids(database, each) for each in keys] == [{answer.json()["id"]} for answer in answers]


async def test_another_key_of_the_account_in_the_same_environment_gets_the_same_answer(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    other = await account.create_key()
    first = await _send(client, key)
    _check_replay(await _send(client, other), first)
    check_problem(await _send(client, other, size="64x64"), 422, "idempotency_key_reused")
    assert (await total(database, key), await total(database, other)) == (1, 0)


async def test_a_hundred_calls_at_once_are_one_picture(
    client: httpx2.AsyncClient, start: Start, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    callers, keys = [client, await start()], [key, await account.create_key()]
    answers = await asyncio.gather(*(_send(callers[n % 2], keys[n // 2 % 2]) for n in range(100)))
    assert [answer.status_code for answer in answers] == [200] * 100
    assert len({answer.content for answer in answers}) == 1
    assert len([answer for answer in answers if "idempotent-replayed" in answer.headers]) == 99
    assert sum([await total(database, each) for each in keys]) == 1


async def test_a_hundred_different_requests_at_once_with_one_key_are_one_picture(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(_send(client, key, prompt=f"{n}") for n in range(100)))
    assert sorted(answer.status_code for answer in answers) == [200, *[422] * 99]
    [made] = [answer.json() for answer in answers if answer.status_code == 200]
    assert await ids(database, key) == {made["id"]}
    assert await database.fetchval("select prompt from generations where key_id = $1", key.id) == made["prompt"]


async def test_a_revoked_key_gets_no_answer_again(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    first, other = await _send(client, key), await account.create_key()
    await account.revoke_key(key)
    check_problem(await _send(client, key), 401, "invalid_api_key")
    _check_replay(await _send(client, other), first)
    assert await total(database, key) == 1


async def test_a_key_is_free_again_after_a_day_and_not_before(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    age = "update claims set created_at = created_at - $2::interval where generation_id = $1 returning created_at"
    first = await _send(client, key)
    assert await database.fetchval(age, first.json()["id"], timedelta(hours=23, minutes=59))
    _check_replay(await _send(client, key), first)
    check_problem(await _send(client, key, size="64x64"), 422, "idempotency_key_reused")
    assert await database.fetchval(age, first.json()["id"], timedelta(minutes=1))
    answers = await asyncio.gather(*(_send(client, key, size="64x64") for _ in range(10)))
    [second] = [answer for answer in answers if "idempotent-replayed" not in answer.headers]
    assert await ids(database, key) == {first.json()["id"], second.json()["id"]}
    assert {answer.content for answer in answers} == {second.content}
    assert await total(database, key) == 2


@pytest.mark.usefixtures("limit_clock")
async def test_a_replay_takes_from_the_rate_limit_and_a_malformed_key_does_not(
    start: Start, key: Key, database: asyncpg.Connection
) -> None:
    client = await start(generate_limit_per_key="3/hour", generate_limit_mode="enforce")
    answers = [await _send(client, key), await _send(client, key, "a b"), await _send(client, key)]
    remaining = [answer.headers.get("x-ratelimit-remaining-requests") for answer in answers]
    assert remaining == ["2", None, "1"]
    assert [(await _send(client, key)).status_code for _ in range(2)] == [200, 429]
    assert await total(database, key) == 1


@pytest.mark.usefixtures("limit_clock")
async def test_what_was_refused_has_not_used_its_key(
    client: httpx2.AsyncClient, start: Start, account: Account, key: Key
) -> None:
    limited = await start(generate_limit_per_key="1/hour", generate_limit_mode="enforce")
    assert (await generate(limited, key)).status_code == 200
    stopped, refused = await account.create_key(), Key("", "nb_live_" + "0" * 32)
    assert (await generate(client, stopped)).status_code == 200
    await account.revoke_key(stopped)
    answers = [
        await _send(client, key, size="0x0"),
        await _send(client, key, prompt=""),
        await _send(client, key, unknown="field"),
        await client.post("/v1/generate", content=b"{", headers={**key.headers, "Idempotency-Key": "k"}),
        await _send(limited, key),
        await _send(client, refused),
        await _send(client, stopped),
    ]
    assert [answer.status_code for answer in answers] == [422, 422, 422, 415, 429, 401, 401]
    _check_first(await _send(client, key))


@pytest.mark.usefixtures("patience")
async def test_an_unknown_outcome_is_resolved_by_a_retry(start: Start, key: Key, database: asyncpg.Connection) -> None:
    client = await start(record_deadline_seconds=1)
    async with locked(database, key):
        sent = asyncio.ensure_future(_send(client, key))
        await until_waiting(database)
        check_problem(await _send(client, key), 503, "unavailable")
        check_problem(await sent, 503, "outcome_unknown")
    answers = [await _send(client, key) for _ in range(3)]
    for answer in answers:
        _check_replay(answer, answers[0])
    assert await total(database, key) == 1


async def test_a_caller_who_hung_up_gets_the_answer_by_a_retry(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    headers = [*key.headers.items(), JSON_TYPE, ("Idempotency-Key", "k"), ("Content-Length", str(len(BODY)))]
    async with locked(database, key):
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(head("POST", "/v1/generate", headers) + BODY)
        await until_waiting(database)
        writer.close()
        await writer.wait_closed()
    answer = await _send(client, key)
    assert answer.status_code == 200
    assert await ids(database, key) == {answer.json()["id"]}
    assert await total(database, key) == 1


async def test_other_calls_mind_no_idempotency_key(client: httpx2.AsyncClient, account: Account) -> None:
    plain = await client.get("/v1/auth/me", headers=account.headers)
    with_key = await client.get("/v1/auth/me", headers={**account.headers, "Idempotency-Key": "a b"})
    assert as_seen(with_key) == as_seen(plain)
