"""From a prompt to an answer: its shape, what is taken as a prompt and as a size, and the limit that is told."""

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.harness import JSON, Account, Clock, Key, generate, post


@pytest.fixture
async def key(account: Account) -> Key:
    """A key that nobody has used."""
    return await account.create_key()


async def _send(client: httpx2.AsyncClient, key: Key, **body: object) -> httpx2.Response:
    return await post(client, "/v1/generate", body, headers=key.headers)


def _errors(answer: httpx2.Response) -> list[JSON]:
    assert answer.status_code == 422, answer.text
    errors: list[JSON] = answer.json()["errors"]
    return errors


async def _recorded(database: asyncpg.Connection, key: Key) -> int:
    count: int = await database.fetchval("select count(*) from generations where key_id = $1", key.id)
    return count


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_the_answer_has_exactly_the_fields_of_the_contract(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, environment: str
) -> None:
    answer = await generate(client, await account.create_key(environment=environment))
    body: JSON = answer.json()
    assert answer.status_code == 200
    assert set(body) == {
        *("id", "url", "prompt", "model", "size", "quality", "format", "price", "currency", "created_at", "images")
    }
    assert re.fullmatch(r"gen_[0-9a-z]{30}", body["id"])
    assert body["url"] == f"https://pictures.test/v1/images/{body['id']}.png"
    assert body["prompt"] == "A cute banana"
    stored = await database.fetchval("select created_at from generations where id = $1", body["id"])
    assert datetime.fromisoformat(body["created_at"]) == stored
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", body["created_at"])


async def test_ids_sort_by_the_time_they_were_made_at(client: httpx2.AsyncClient, key: Key) -> None:
    times = [(await generate(client, key)).json()["id"][4:14] for _ in range(10)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "prompt",
    [
        "a",
        "a" * 4000,
        "\U0001f34c" * 4000,
        "%s{{7*7}}${jndi:ldap://x}",
        "  leading, trailing and\tinner \n white space \r\n",
        "'; drop table generations --",
        "\x01\x7f\u202e\u200b\ufeff\ufffe",
        "cafe\u0301 caf\u00e9",
        '<script>alert(1)</script>&amp;"\\u0000"',
    ],
    ids=ascii,
)
async def test_a_prompt_comes_back_and_is_stored_exactly_as_it_was_sent(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, prompt: str
) -> None:
    answer = await _send(client, key, prompt=prompt)
    assert (answer.status_code, answer.json()["prompt"]) == (200, prompt)
    assert await database.fetchval("select prompt from generations where key_id = $1", key.id) == prompt


@pytest.mark.parametrize(
    "prompt", ["", " ", "\t\r\n", "\u00a0\u2003\u3000", "a" * 4001, "a\0b", "a\ud800b", None, 1, True, ["a"]], ids=ascii
)
async def test_any_other_prompt_is_refused_and_nothing_is_recorded(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, prompt: object
) -> None:
    assert [error["pointer"] for error in _errors(await _send(client, key, prompt=prompt))] == ["#/prompt"]
    assert await _recorded(database, key) == 0


@pytest.mark.parametrize("body", [{}, {"size": "64x64"}, {"prompt": "a", "n": 1}, {"prompt": "a", "id": "gen_1"}])
async def test_missing_and_unknown_fields_are_refused_and_nothing_is_recorded(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, body: JSON
) -> None:
    assert len(_errors(await _send(client, key, **body))) == 1
    assert await _recorded(database, key) == 0


async def test_the_size_is_1024x1024_unless_it_is_asked_for_otherwise(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    assert (await _send(client, key, prompt="A cute banana")).status_code == 200
    assert await database.fetchval("select size from generations where key_id = $1", key.id) == "1024x1024"


@pytest.mark.parametrize("size", ["64x64", "2048x2048", "64x2048", "65x301"])
async def test_a_possible_size_is_stored_as_it_was_asked_for(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, size: str
) -> None:
    assert (await generate(client, key, size=size)).status_code == 200
    assert await database.fetchval("select size from generations where key_id = $1", key.id) == size


@pytest.mark.parametrize(
    "size",
    [
        "0x0",
        "63x64",
        "64x63",
        "64x2049",
        "2049x64",
        "99999x99999",
        "99999999999999999999x64",
        "1024X1024",
        "1024\u00d71024",
        "1e3x5",
        "064x064",
        "+64x64",
        "-64x64",
        "64.0x64",
        "6_4x64",
        " 64x64",
        "64x64 ",
        "64x64\n",
        "64 x 64",
        "\uff16\uff14x\uff16\uff14",  # full-width digits
        "\u0666\u0664x\u0666\u0664",  # Arabic digits
        "64",
        "x",
        "64x",
        "64x64x64",
        "1024",
        "auto",
        "",
        "9" * 4000,
    ],
    ids=ascii,
)
async def test_any_other_size_is_refused_with_what_is_possible_and_nothing_is_recorded(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, size: str
) -> None:
    [error] = _errors(await _send(client, key, prompt="A cute banana", size=size))
    assert error["pointer"] == "#/size"
    assert "64x64 to 2048x2048" in error["detail"]
    assert await _recorded(database, key) == 0


@pytest.mark.parametrize("size", [None, 64, "64x64\0", "64x64\ud800", ["64x64"], {"width": 64}], ids=ascii)
async def test_a_size_is_text(client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, size: object) -> None:
    [error] = _errors(await _send(client, key, prompt="A cute banana", size=size))
    assert error["pointer"] == "#/size"
    assert await _recorded(database, key) == 0


def _told(answer: httpx2.Response) -> tuple[str, ...]:
    names = ("RateLimit-Policy", "RateLimit", *(f"x-ratelimit-{of}-requests" for of in ("limit", "remaining", "reset")))
    return tuple(answer.headers[name] for name in names)


async def test_the_limit_is_told_on_every_call_and_a_refused_body_counts_too(
    start: Start, limit_clock: Clock, key: Key
) -> None:
    client = await start(generate_limit_per_key="60/minute")
    answers = [await generate(client, key), await generate(client, key, size="0x0"), await generate(client, key)]
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert [_told(answer) for answer in answers] == [
        ('"key";q=60;w=60', '"key";r=59;t=1', "60", "59", "1s"),
        ('"key";q=60;w=60', '"key";r=58;t=2', "60", "58", "2s"),
        ('"key";q=60;w=60', '"key";r=57;t=3', "60", "57", "3s"),
    ]
    limit_clock.now += 3
    assert _told(await generate(client, key))[1] == '"key";r=59;t=1'


@pytest.mark.usefixtures("limit_clock")
async def test_observing_a_limit_refuses_nobody_and_tells_that_nothing_remains(
    start: Start, key: Key, database: asyncpg.Connection
) -> None:
    client = await start(generate_limit_per_key="2/hour", generate_limit_mode="observe")
    answers = [await generate(client, key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [_told(answer)[1] for answer in answers] == [
        '"key";r=1;t=1800',
        '"key";r=0;t=3600',
        '"key";r=0;t=3600',
        '"key";r=0;t=3600',
    ]
    assert not [answer for answer in answers if "retry-after" in answer.headers]
    assert await _recorded(database, key) == 4


async def test_an_enforced_limit_refuses_until_retry_after_and_leaves_other_keys_alone(
    start: Start, limit_clock: Clock, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    client, other = await start(generate_limit_per_key="2/hour", generate_limit_mode="enforce"), account
    assert [(await generate(client, key)).status_code for _ in range(2)] == [200, 200]
    limit_clock.now += 0.5
    refused = await generate(client, key)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limit_exceeded")
    assert refused.json()["detail"] == "Rate limit exceeded"
    assert _told(refused) == ('"key";q=2;w=3600', '"key";r=0;t=3600', "2", "0", "3600s")
    assert refused.headers["retry-after"] == "1800"
    assert await _recorded(database, key) == 2
    assert (await generate(client, await other.create_key())).status_code == 200
    limit_clock.now += 1799
    assert (await generate(client, key)).headers["retry-after"] == "1"
    limit_clock.now += 1
    assert [(await generate(client, key)).status_code for _ in range(2)] == [200, 429]


@pytest.mark.usefixtures("limit_clock")
async def test_parallel_calls_are_no_more_than_the_enforced_limit(
    start: Start, key: Key, database: asyncpg.Connection
) -> None:
    client = await start(generate_limit_per_key="10/day", generate_limit_mode="enforce")
    answers = await asyncio.gather(*(generate(client, key) for _ in range(60)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 50}
    assert await _recorded(database, key) == 10


@pytest.mark.usefixtures("limit_clock")
async def test_a_refused_key_takes_nothing_from_the_limit(start: Start, account: Account) -> None:
    client = await start(generate_limit_per_key="2/hour", generate_limit_mode="enforce")
    key = await account.create_key()
    unknown = [await generate(client, Key("", "nb_live_" + "0" * 32)) for _ in range(3)]
    assert [(answer.status_code, "ratelimit" in answer.headers) for answer in unknown] == [(401, False)] * 3
    assert (await generate(client, key)).headers["x-ratelimit-remaining-requests"] == "1"


async def test_created_at_is_the_databases_time(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    before = await database.fetchval("select clock_timestamp()")
    created_at = datetime.fromisoformat((await generate(client, key)).json()["created_at"])
    assert created_at.utcoffset() == timedelta()
    assert before <= created_at.astimezone(UTC) <= await database.fetchval("select clock_timestamp()")
