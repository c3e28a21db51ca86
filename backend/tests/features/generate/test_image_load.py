"""Many requests for images at a time: each image is drawn once, and the many of one address are not in others' way."""

import asyncio
from collections import Counter

import httpx2
import pytest
from app.core.images import ImageFormat
from app.providers import Image, decode
from app.providers.stub.art import draw_png
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.generate.test_thumbnails import MAKE, made
from tests.features.stub_images import image_paths
from tests.harness import PATIENCE_SECONDS, Account, sign_up
from tests.pool_calls import THREADS, Hold, PoolCalls
from tests.raw_http import crowd, head

DRAW = "app.providers.stub.draw_png"
CLIENTS = 100
SCALED_AT_A_TIME = 4


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The width of each image that was drawn or scaled from now on."""
    widths: list[str] = []

    def draw(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        widths.append(f"{width} drawn")
        return draw_png(prompt, width=width, height=height, model=model)

    def thumbnail(content: bytes, width: int, image_format: ImageFormat) -> Image:
        widths.append(f"{width} scaled")
        return decode.thumbnail(content, width, image_format)

    monkeypatch.setattr(DRAW, draw)
    monkeypatch.setattr(MAKE, thumbnail)
    return widths


def _from(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


@pytest.mark.parametrize("query", ["", "?width=64"])
async def test_an_image_that_100_clients_ask_for_at_once_is_drawn_once(
    start: Start, drawn: list[str], query: str
) -> None:
    client = await start(drawing_queue_max=1)
    [path] = await image_paths(client, await (await sign_up(client)).create_key(), 1)
    answers = await asyncio.gather(*(client.get(f"{path}{query}") for _ in range(CLIENTS)))
    assert Counter(each.status_code for each in answers) == {200: CLIENTS}
    assert len({each.content for each in answers}) == 1
    assert drawn == ["256 drawn", *(["64 scaled"] if query else [])]
    await client.get(f"{path}{query}")
    assert drawn.count("256 drawn") == 1, "it is kept for a while"


async def test_an_image_of_the_stub_is_not_drawn_to_be_asked_about(
    client: httpx2.AsyncClient, account: Account, drawn: list[str]
) -> None:
    [path] = await image_paths(client, await account.create_key(), 1)
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=999999-"}):
        answer = await client.head(path, headers=headers)
        assert (answer.status_code, answer.content, "content-length" in answer.headers) == (200, b"", False)
    assert (await client.get(path, headers={"If-None-Match": answer.headers["etag"]})).status_code == 304
    assert drawn == []
    whole = await client.get(path)
    for first in (len(whole.content), 10**14):
        behind = await client.get(path, headers={"Range": f"bytes={first}-"})
        assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(whole.content)}")
    assert (await client.get(path, headers={"Range": "bytes=-5"})).content == whole.content[-5:]
    assert (await client.head(path)).headers["content-length"] == str(len(whole.content))
    assert drawn == ["256 drawn"]
    [path] = await image_paths(client, await account.create_key(), 1)
    for _ in range(3):  # the size, which a 416 names, is known once it is drawn
        assert (await client.get(path, headers={"Range": "bytes=999999-"})).status_code == 416
    assert (await client.get(path)).status_code == 200
    assert drawn == ["256 drawn"] * 2


async def test_100_images_that_one_address_asks_for_leave_another_its_share(
    start: Start, hold: Hold, pool_calls: PoolCalls
) -> None:
    drawing = hold(DRAW, draw_png)
    client = await start(drawing_queue_max=8, trusted_proxies="127.0.0.0/8")
    key = await (await sign_up(client)).create_key()
    *many, one = await image_paths(client, key, CLIENTS + 1, size="64x64")
    handed = pool_calls.handed
    calls = [asyncio.ensure_future(client.get(path, headers=_from("192.0.2.1"))) for path in many]
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _, refused in zip(range(CLIENTS - THREADS - 8), asyncio.as_completed(calls), strict=False):
            assert (await refused).status_code == 503
    other = asyncio.ensure_future(client.get(one, headers=_from("198.51.100.1")))
    await pool_calls.until(handed=handed + CLIENTS + 1)
    assert drawing.begun == THREADS
    drawing.let_go()
    assert (await other).status_code == 200
    statuses = Counter(each.status_code for each in await asyncio.gather(*calls))
    assert statuses == {200: THREADS + 7, 503: CLIENTS - THREADS - 7}, "the last in the queue made way"


@pytest.mark.parametrize("places", [2, 8])  # the queue for drawing is full, or that of images to be read
async def test_stored_images_are_scaled_for_all_addresses_in_turn(start: Start, hold: Hold, places: int) -> None:
    making, drawable = hold(MAKE, decode.thumbnail), THREADS + places
    kept = drawable if drawable < SCALED_AT_A_TIME else SCALED_AT_A_TIME + places
    async with painted(start, drawing_queue_max=places, trusted_proxies="127.0.0.0/8") as there:
        *stems, another = [(await made(there.client, there.key)).removesuffix(".png") for _ in range(3)]
        small = [f"{extension}?width={width}" for extension in ("png", "webp") for width in (64, 128, 256, 512)]
        many = [there.client.get(f"{stem}.{each}", headers=_from("192.0.2.1")) for stem in stems for each in small]
        calls = [asyncio.ensure_future(each) for each in many]
        refused = asyncio.as_completed(calls, timeout=PATIENCE_SECONDS)
        for _ in range(len(calls) - kept):
            assert (await next(refused)).status_code == 503
        other = asyncio.ensure_future(there.client.get(f"{another}.png?width=64", headers=_from("198.51.100.1")))
        assert (await next(refused)).status_code == 503, "it makes way"
        making.let_go()
        assert (await other).status_code == 200
        assert [(await each).status_code for each in refused] == [200] * (kept - 1)


async def test_an_image_that_nobody_waits_for_any_more_is_not_drawn(
    start: Start, hold: Hold, pool_calls: PoolCalls
) -> None:
    drawing = hold(DRAW, draw_png)
    client = await start(drawing_queue_max=8)
    key = await (await sign_up(client)).create_key()
    *busy, wanted = await image_paths(client, key, THREADS + 1, size="64x64")
    handed, given_up = pool_calls.handed, pool_calls.given_up
    calls = [asyncio.ensure_future(client.get(path)) for path in busy]
    await drawing.until_begun(THREADS)
    async with crowd(client, head("GET", wanted), CLIENTS):
        await pool_calls.until(handed=handed + THREADS + 1)
    await pool_calls.until(given_up=given_up + 1)
    drawing.let_go()
    assert {each.status_code for each in await asyncio.gather(*calls)} == {200}
    assert drawing.begun == THREADS
