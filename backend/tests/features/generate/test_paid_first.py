"""What a provider was paid for is decoded before anything that costs nothing, and whatever becomes of its client."""

import asyncio
import json
import os
import sys
import threading
from collections import Counter
from functools import cache, partial

import asyncpg
import httpx2
import pytest
from app.core.images import ImageFormat
from app.providers import Image, Size, decode
from app.providers.stub.art import draw_png
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.stub_images import image_paths
from tests.features.usage.recorded import total
from tests.harness import BEYOND_PATIENCE_SECONDS, Key, generate, looks
from tests.pool_calls import THREADS, Hold, PoolCalls
from tests.raw_http import crowd, head, post_of

DRAW = "app.providers.stub.draw_png"
DELIVERED = "select count(*) from generations where key_id = $1 and status = 'delivered'"
WAITING = 400
_AT_ONCE = 40
"""So many ask together: on a busy machine the last of 400 would find no connection to the database free in time."""
SIZE = "256x256"
AS_WEBP = {"prompt": "A cute banana", "size": SIZE, "response_format": "b64_json", "output_format": "webp"}


async def _image_path(there: Painted) -> str:
    answer = await generate(there.client, await there.account.create_key(environment="test"), size=SIZE)
    return f"/v1/images/{answer.json()['id']}.png"


async def _ask_for_webp(client: httpx2.AsyncClient, key: Key) -> httpx2.Response:
    return await client.post("/v1/images/generations", json=AS_WEBP, headers=key.headers)


async def test_paid_images_are_delivered_while_400_anonymous_clients_wait_for_images_of_the_stub(
    start: Start, database: asyncpg.Connection, pool_calls: PoolCalls, hold: Hold
) -> None:
    drawing = hold(DRAW, cache(draw_png))
    async with painted(start, drawing_queue_max=WAITING, generation_deadline_seconds=20) as there:
        paths = await image_paths(there.client, await there.account.create_key(environment="test"), WAITING)
        show = partial(there.client.get, timeout=BEYOND_PATIENCE_SECONDS)
        waiting: list[asyncio.Future[httpx2.Response]] = []
        for path in paths:
            waiting.append(asyncio.ensure_future(show(path)))
            if len(waiting) % _AT_ONCE == 0:
                await pool_calls.until(handed=len(waiting))
        await drawing.until_begun(THREADS)
        ordered = [generate(there.client, there.key, size=SIZE) for _ in range(4)]
        converted = [_ask_for_webp(there.client, there.key) for _ in range(4)]
        answers = await asyncio.gather(*ordered, *converted)
        assert Counter(answer.status_code for answer in answers) == {200: 8}
        assert not any(each.done() for each in waiting), "they were decoded while the stub's work was queued"
        assert drawing.begun == THREADS
        assert len(there.provider.seen) == 8, "nothing was paid twice"
        assert await total(database, there.key) == 8
        drawing.let_go()
        assert Counter(answer.status_code for answer in await asyncio.gather(*waiting)) == {200: WAITING}


async def test_conversion_has_the_threads_of_the_provider_that_drew(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def convert(image: Image, image_format: ImageFormat, compression: int | None) -> Image:
        threads.append(threading.current_thread().name.rpartition("_")[0])
        return decode.convert(image, image_format, compression)

    monkeypatch.setattr("app.generations.collaborators.convert", convert)
    async with painted(start) as there:
        for key in (there.key, await there.account.create_key(environment="test")):
            assert (await _ask_for_webp(there.client, key)).status_code == 200
    assert threads == ["decode-images", "draw-images"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority belongs to the process")
async def test_decoding_gives_way_to_the_event_loop_and_drawing_gives_way_to_decoding(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    niceness: dict[str, int] = {}

    def note(name: str) -> None:
        niceness[name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def fit(content: bytes, size: Size) -> Image:
        note("decoding")
        return decode.fit(content, size)

    def draw(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        note("drawing")
        return draw_png(prompt, width=width, height=height, model=model)

    monkeypatch.setattr("app.providers.responses.fit", fit)
    monkeypatch.setattr("app.providers.stub.draw_png", draw)
    note("event loop")
    async with painted(start) as there:
        assert (await generate(there.client, there.key)).status_code == 200
        assert (await there.client.get(await _image_path(there))).status_code == 200
    assert niceness["event loop"] < niceness["decoding"] < niceness["drawing"]


async def test_paid_images_are_decoded_kept_and_counted_though_their_clients_left_the_queue(
    start: Start, database: asyncpg.Connection, pool_calls: PoolCalls, hold: Hold
) -> None:
    hold(DRAW, draw_png)
    decoding = hold("app.providers.responses.fit", decode.fit)
    async with painted(start, generation_deadline_seconds=600) as there:
        paid = post_of("/v1/images/generations", json.dumps(AS_WEBP).encode(), there.key.headers.items())
        free = head("GET", await _image_path(there))
        async with crowd(there.client, paid, 8):
            await pool_calls.until(handed=8)
        async with crowd(there.client, free, 1):
            await pool_calls.until(handed=9)
        await pool_calls.until(given_up=1)  # who left after the others is noticed: so are they
        decoding.let_go()
        for _ in looks():
            if await database.fetchval(DELIVERED, there.key.id) == 8:
                break
            await asyncio.sleep(0.01)
        assert await total(database, there.key) == 8
        assert pool_calls.given_up == 1
        assert len(there.provider.seen) == 8


async def test_as_many_images_as_a_provider_draws_at_a_time_find_a_place_to_be_decoded_and_converted(
    start: Start, hold: Hold, pool_calls: PoolCalls
) -> None:
    decoding = hold("app.providers.responses.fit", decode.fit)
    async with painted(start, provider_calls_max=8, provider_calls_max_per_account=8, drawing_queue_max=1) as there:
        paid = [asyncio.ensure_future(_ask_for_webp(there.client, there.key)) for _ in range(8)]
        await pool_calls.until(handed=8)
        assert not any(each.done() for each in paid)
        decoding.let_go()
        assert Counter(answer.status_code for answer in await asyncio.gather(*paid)) == {200: 8}
