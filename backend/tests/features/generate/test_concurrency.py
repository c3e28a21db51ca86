"""How many generations of a key may run at a time, and that a slot is free again however one ends."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg
import httpx2
import pytest
from app.core.bounds import EdgeBounds
from app.core.errors import Unavailable
from app.generations.errors import OutcomeUnknown
from app.generations.ledger import Ledger
from tests.conftest import Start
from tests.features.held import held
from tests.features.scraped import METRICS_TOKEN, refusals
from tests.features.usage.recorded import locked, total
from tests.harness import PATIENCE_SECONDS, Account, Key, generate, post, until_waited_for
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, chunk, connected, head, send_raw

BODY = b'{"prompt": "A cute banana"}'

Open = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
async def key(account: Account) -> Key:
    """A key that has not been used."""
    return await account.create_key()


@pytest.fixture
async def open_with(request: pytest.FixtureRequest, start: Start) -> Open:
    """Starts the application with so many slots for each key, and a ledger that waits for a locked row."""
    request.getfixturevalue("patience")

    async def start_with(slots: int, **settings: object) -> httpx2.AsyncClient:
        return await start(generate_concurrency_per_key=slots, record_deadline_seconds=60, **settings)

    return start_with


def _head(key: Key, length: int = len(BODY)) -> bytes:
    return head("POST", "/v1/generate", [*key.headers.items(), JSON_TYPE, ("Content-Length", str(length))])


async def _until(client: httpx2.AsyncClient, key: Key, status: int) -> None:
    """Returns once a call that would be a 422 has this status: 429 while the only slot is held."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await generate(client, key, size="0x0")).status_code != status:
            pass


async def test_a_generation_without_a_free_slot_is_refused_and_takes_nothing_from_the_limit(
    open_with: Open, key: Key, database: asyncpg.Connection
) -> None:
    client = await open_with(3, generate_limit_per_key="100/day")
    async with held(database, key, client, slots=3) as refused:
        for answer in (*refused, await generate(client, key)):
            check_problem(answer, 429, "concurrency_limit_exceeded")
            assert answer.headers["ratelimit"].startswith('"key";r=97;')
    assert (await generate(client, key)).headers["ratelimit"].startswith('"key";r=96;')
    assert await total(database, key) == 4


async def test_each_key_has_its_own_slots(
    open_with: Open, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    client, other = await open_with(2), await account.create_key()
    async with held(database, key, client, slots=2):
        calls = [asyncio.ensure_future(generate(client, other)) for _ in range(3)]
        check_problem(await next(asyncio.as_completed(calls)), 429, "concurrency_limit_exceeded")
    assert sorted([answer.status_code for answer in await asyncio.gather(*calls)]) == [200, 200, 429]


async def test_rate_limit_then_slots_are_checked_after_the_key_and_before_the_body(
    open_with: Open, key: Key, database: asyncpg.Connection
) -> None:
    roomy, spent = await open_with(1), await open_with(1, generate_limit_per_key="1/day")
    text = {"Content-Type": "text/plain"}
    for client, code in ((roomy, "concurrency_limit_exceeded"), (spent, "rate_limit_exceeded")):
        async with held(database, key, client, slots=1, more=0):
            refused = await client.post("/v1/generate", content=b"{", headers={**key.headers, **text})
            unknown = await client.post("/v1/generate", content=b"{", headers={"Authorization": "Bearer x", **text})
        check_problem(refused, 429, code)
        assert refused.headers["retry-after"] == ("1" if client is roomy else "86400")
        check_problem(unknown, 401, "invalid_api_key")


async def test_a_slot_is_free_again_after_every_answer(
    start: Start, key: Key, database: asyncpg.Connection, externals: dict[str, Any]
) -> None:
    externals["edge_bounds"] = EdgeBounds(body_seconds=0.5)
    client = await start(generate_concurrency_per_key=1)
    chunked = head("POST", "/v1/generate", [*key.headers.items(), JSON_TYPE, ("Transfer-Encoding", "chunked")])

    async def suspend(*, suspended: bool) -> None:
        await database.execute("update api_keys set is_suspended = $2 where id = $1", key.id, suspended)

    assert (await generate(client, key)).status_code == 200
    assert (await generate(client, key, size="0x0")).status_code == 422
    assert (await generate(client, key, unknown="field")).status_code == 422
    assert (await client.post("/v1/generate", content=BODY, headers=key.headers)).status_code == 415
    assert (await post(client, "/v1/generate", float("nan"), headers=key.headers)).status_code == 400
    assert (await send_raw(client, _head(key), BODY[:-1])).status_code == 408
    assert (await send_raw(client, chunked, *[chunk(b" " * 4096)] * 17, chunk(b""))).status_code == 413
    await suspend(suspended=True)
    assert (await generate(client, key)).status_code == 401, "refused when it was to be recorded"
    await suspend(suspended=False)
    assert [(await generate(client, key)).status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(("failure", "status"), [(Unavailable, 503), (OutcomeUnknown, 503), (RuntimeError, 500)])
async def test_a_slot_is_free_again_after_a_failure(
    start: Start, key: Key, monkeypatch: pytest.MonkeyPatch, failure: type[Exception], status: int
) -> None:
    async def fail(*_: object) -> None:
        raise failure

    client = await start(generate_concurrency_per_key=1)
    with monkeypatch.context() as context:
        context.setattr(Ledger, "record", fail)
        assert [(await generate(client, key)).status_code for _ in range(3)] == [status] * 3
    assert [(await generate(client, key)).status_code for _ in range(3)] == [200, 200, 200]


async def test_a_client_that_hangs_up_before_its_body_is_complete_frees_the_slot(start: Start, key: Key) -> None:
    client = await start(generate_concurrency_per_key=1, record_deadline_seconds=60)
    async with connected(client) as (_, writer):
        writer.write(_head(key) + BODY[:-1])
        await _until(client, key, 429)
    await _until(client, key, 422)


async def test_the_generation_of_a_client_that_hung_up_holds_its_slot_until_it_is_recorded(
    open_with: Open, key: Key, database: asyncpg.Connection
) -> None:
    client = await open_with(1)
    async with locked(database, key):
        async with connected(client) as (_, writer):
            writer.write(_head(key) + BODY)
            await until_waited_for(database)
        assert (await client.get("/health")).status_code == 200
        check_problem(await generate(client, key), 429, "concurrency_limit_exceeded")
    await _until(client, key, 422)
    assert await total(database, key) == 1


async def test_mode_observe_counts_missing_slots_and_refuses_no_generation(
    open_with: Open, key: Key, database: asyncpg.Connection
) -> None:
    client = await open_with(1, generate_limit_mode="observe", metrics_token=METRICS_TOKEN)
    async with held(database, key, client, slots=4, more=0), asyncio.timeout(PATIENCE_SECONDS):
        while await refusals(client) != {("concurrency", "observe"): 3}:
            pass
    answer = await generate(client, key)
    assert (answer.status_code, "retry-after" in answer.headers) == (200, False)
    assert await refusals(client) == {("concurrency", "observe"): 3}


@pytest.mark.parametrize("with_redis", [False, True], ids=["memory", "Redis"])
async def test_a_request_for_several_images_takes_a_slot_for_each_and_frees_each(
    request: pytest.FixtureRequest, open_with: Open, key: Key, database: asyncpg.Connection, *, with_redis: bool
) -> None:
    limiter = {"redis_url": request.getfixturevalue("redis_url")} if with_redis else {}
    client = await open_with(5, generate_limit_per_key="900/day", **limiter)
    ask = partial(client.post, "/v1/images/generations", headers=key.headers)
    four = {"prompt": "A cute banana", "size": "64x64", "n": 4}
    never = await ask(json={**four, "n": 6})
    check_problem(never, 422, "validation_error")
    assert "let 5 through at once" in never.json()["error"]["message"]
    async with locked(database, key):
        running = asyncio.create_task(ask(json=four))
        await until_waited_for(database)
        refused = await ask(json={**four, "n": 2})
        check_problem(refused, 429, "concurrency_limit_exceeded")
        last = asyncio.create_task(generate(client, key))
    answers = [await running, refused, await last]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["895", "894", "894"], "what was refused for its slots gave its unit back"
    for _ in range(2):
        assert (await ask(json={**four, "n": 5})).status_code == 200, "every slot is free again"
    assert await total(database, key) == 4 + 1 + 2 * 5
