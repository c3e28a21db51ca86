"""A stream only watches: whatever its client does, the generation ends as any other, and holds its slots until then."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx2
import pytest
from app.core.detached import DetachedTasks
from app.core.settings import Settings
from pydantic import SecretStr
from tests.conftest import Start
from tests.features.generate.painted import PROVIDER_KEY, Painted, painted, painted_by_openai
from tests.features.usage.recorded import locked, total, until_waiting
from tests.harness import Key, generate, looks, running, sign_up
from tests.problems import check_problem
from tests.raw_http import connected, post_of
from tests.standins import gemini
from tests.standins.gemini import image_bytes
from tests.standins.openai import OpenAIStandIn, completed, sketch, streamed
from tests.standins.wire import Reply, serving

ROUTE = "/v1/images/generations"
BODY = {"prompt": "A cute banana", "stream": True, "partial_images": 1}
ONCE = {"Idempotency-Key": "once"}
IMAGE = image_bytes(1024, 1024)
STREAMING = {"openai_capabilities": "stream"}
A_PROXY = {"trusted_proxies": "127.0.0.0/8"}  # whose connections are read after a refusal too


def reply_of(gate: asyncio.Event, *, with_sketch: bool) -> Reply:
    """A stream whose image comes once the gate is set; a sketch may come at once."""
    first = [sketch(0, image_bytes(64, 64))] if with_sketch else []
    return streamed(*first, later=(gate, completed(IMAGE)))


async def watch_and_leave(client: httpx2.AsyncClient, key: Key, provider: OpenAIStandIn, *, sees_sketch: bool) -> None:
    """Hangs up once a sketch has arrived, or without one as soon as the provider was called. Then the server knows."""
    request = post_of(ROUTE, json.dumps(BODY).encode(), [*key.headers.items(), *ONCE.items()])
    async with connected(client) as (reader, writer):
        writer.write(request)
        if sees_sketch:
            await reader.readuntil(b"partial_image")
        for _ in looks():
            if provider.seen:
                break
            await asyncio.sleep(0.01)
    assert (await client.get("/health")).status_code == 200


async def _list(there: Painted) -> httpx2.Response:
    return await there.client.get("/v1/generations", headers=there.key.headers)


async def _ask_wrongly(there: Painted) -> httpx2.Response:
    return await generate(there.client, there.key, size="0x0")


async def read_lines(answer: httpx2.Response, lines: list[str]) -> None:
    """Adds the lines of the answer as they come."""
    async for line in answer.aiter_lines():
        lines += [line]


class Bound(NamedTuple):
    """A setting of which there is one slot, a call that finds none, how that is refused, and its status with a slot."""

    setting: str
    call: Callable[[Painted], Awaitable[httpx2.Response]]
    refusal: tuple[int, str]
    status: int


@pytest.mark.parametrize("sees_sketch", [False, True], ids=["before the first event", "between events"])
@pytest.mark.parametrize(
    "bound",
    [
        Bound("requests_max", _list, (503, "overloaded"), 200),
        Bound("generate_concurrency_per_key", _ask_wrongly, (429, "concurrency_limit_exceeded"), 422),
    ],
    ids=["of the process", "of the key"],
)
async def test_the_generation_of_a_client_that_left_holds_its_slots_until_it_has_ended_and_is_delivered(
    start: Start, database: asyncpg.Connection, bound: Bound, *, sees_sketch: bool
) -> None:
    gate = asyncio.Event()
    async with painted_by_openai(start, **STREAMING, **{bound.setting: 1}, **A_PROXY) as there:
        assert isinstance(there.provider, OpenAIStandIn)
        there.provider.faults.append(reply_of(gate, with_sketch=sees_sketch))
        await watch_and_leave(there.client, there.key, there.provider, sees_sketch=sees_sketch)
        for _ in range(3):
            check_problem(await bound.call(there), *bound.refusal)
        gate.set()
        for _ in looks():
            if (await bound.call(there)).status_code == bound.status:
                break
            await asyncio.sleep(0.01)
        assert (await bound.call(there)).status_code == bound.status, "and for good"
        [listed] = (await _list(there)).json()
        assert (await there.client.get(httpx2.URL(listed["url"]).path)).content == IMAGE
        headers = {**there.key.headers, **ONCE}
        replay = await there.client.post(ROUTE, json={"prompt": BODY["prompt"]}, headers=headers)
        assert replay.json()["data"] == [{"url": listed["url"]}]
        assert len(there.provider.seen) == await total(database, there.key) == 1


async def test_both_slots_are_free_again_however_a_stream_ends(start: Start) -> None:
    async with painted(start, requests_max=1, generate_concurrency_per_key=1) as there:
        there.provider.faults.extend([gemini.blocked_prompt("SAFETY"), gemini.html()])
        test_key = await there.account.create_key(environment="test")
        calls = [(there.key, 400), (there.key, 502), (there.key, 200), (there.key, 200), (test_key, 200)] * 2
        for key, status in calls:
            answer = await there.client.post(ROUTE, json=BODY, headers=key.headers)
            assert answer.status_code == status, answer.text
            there.provider.faults.extend([gemini.blocked_prompt("SAFETY"), gemini.html()] if key is test_key else [])


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("environment", ["live", "test"])
async def test_an_image_is_sent_only_once_it_is_recorded_for_good(
    start: Start, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setattr("app.features.watched.KEEP_ALIVE_SECONDS", 0.01)
    async with painted(start, record_deadline_seconds=60) as there, AsyncExitStack() as stack:
        gate, key = asyncio.Event(), await there.account.create_key(environment=environment)
        there.provider.faults.append(gemini.slow(gate))
        row = await stack.enter_async_context(AsyncExitStack())
        if environment == "test":  # the stub's image is recorded once
            await row.enter_async_context(locked(database, key))
        answer = await stack.enter_async_context(there.client.stream("POST", ROUTE, json=BODY, headers=key.headers))
        if environment == "live":
            await there.asked()
            await row.enter_async_context(locked(database, key))
            gate.set()
        lines = list[str]()
        reading = asyncio.create_task(read_lines(answer, lines))
        await until_waiting(database)
        seen = len(lines)
        while len(lines) < seen + 20:
            assert set(lines) <= {": keep-alive", ""}
            await asyncio.sleep(0.01)
        await row.aclose()
        await reading
        assert "event: image_generation.completed" in lines
        assert await total(database, key) == 1


async def test_a_stopping_server_waits_for_generations_that_no_client_watches_any_more(
    settings: Settings, tmp_path: Path, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain, is_draining = DetachedTasks.drain, asyncio.Event()

    async def noticed(tasks: DetachedTasks) -> None:
        is_draining.set()
        await drain(tasks)

    monkeypatch.setattr(DetachedTasks, "drain", noticed)
    provider, gate = OpenAIStandIn(api_key=PROVIDER_KEY), asyncio.Event()
    async with serving(provider.answer) as url, AsyncExitStack() as stack:
        chosen = {"image_provider": "openai", "openai_api_key": SecretStr(PROVIDER_KEY), "openai_base_url": f"{url}/v1"}
        changed = Settings(**{**settings.model_dump(), **chosen, **STREAMING, "data_dir": tmp_path})
        client = await stack.enter_async_context(running(changed))
        key = await (await sign_up(client)).create_key()
        provider.faults.append(reply_of(gate, with_sketch=True))
        await watch_and_leave(client, key, provider, sees_sketch=True)
        stopping = asyncio.create_task(stack.pop_all().aclose())
        draining = asyncio.create_task(is_draining.wait())
        await asyncio.wait({stopping, draining}, return_when=asyncio.FIRST_COMPLETED)
        assert await total(database, key) == 0
        gate.set()
        await stopping
        draining.cancel()
        assert await total(database, key) == 1
    assert await database.fetchval("select status from generations where key_id = $1", key.id) == "delivered"
