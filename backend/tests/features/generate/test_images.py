"""The picture behind a URL: exactly the one that was delivered, the same for ever, and nothing for anybody else."""

import asyncio
import os
import threading
from collections import Counter
from io import BytesIO

import asyncpg
import httpx2
import pytest
from app.core.security import new_timed_id
from app.providers.stub.art import draw_png
from PIL import Image
from tests.conftest import Start
from tests.features.stub_images import image_paths
from tests.harness import PATIENCE_SECONDS, Account, Key, as_seen, generate

UNKNOWN_ID = f"gen_{'0' * 30}"


@pytest.fixture
async def key(account: Account) -> Key:
    """A key."""
    return await account.create_key()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that were drawn from now on."""
    prompts: list[str] = []

    def counted(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        prompts.append(prompt)
        return draw_png(prompt, width=width, height=height, model=model)

    monkeypatch.setattr("app.providers.stub.draw_png", counted)
    return prompts


async def _path(client: httpx2.AsyncClient, key: Key, *, size: str = "64x64", prompt: str = "A cute banana") -> str:
    answer = await generate(client, key, size=size, prompt=prompt)
    assert answer.status_code == 200, answer.text
    return f"/v1/images/{answer.json()['id']}.png"


@pytest.mark.parametrize("environment", ["live", "test"])
@pytest.mark.parametrize("size", ["64x64", "320x200", "65x301", "2048x2048"])
async def test_the_picture_is_a_png_of_exactly_the_asked_size(
    client: httpx2.AsyncClient, account: Account, size: str, environment: str
) -> None:
    answer = await client.get(await _path(client, await account.create_key(environment=environment), size=size))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(BytesIO(answer.content)) as picture:
        picture.load()
        assert (picture.format, f"{picture.width}x{picture.height}") == ("PNG", size)


@pytest.mark.parametrize("prompt", ["%s{{7*7}}${jndi:ldap://x}", "\U0001f34c" * 4000, "\x01\u202e\ufffe", "a\n" * 2000])
async def test_whatever_the_prompt_is_its_picture_can_be_drawn(
    client: httpx2.AsyncClient, key: Key, prompt: str
) -> None:
    assert (await client.get(await _path(client, key, prompt=prompt))).status_code == 200


async def test_the_bytes_are_the_same_every_time_and_on_every_instance(
    client: httpx2.AsyncClient, start: Start, key: Key
) -> None:
    path = await _path(client, key, size="128x96")
    answers = [await client.get(path), await client.get(path), await (await start()).get(path)]
    assert [as_seen(answer) for answer in answers] == [as_seen(answers[0])] * 3


async def test_other_prompts_have_other_pictures(client: httpx2.AsyncClient, key: Key) -> None:
    paths = [await _path(client, key, prompt=prompt) for prompt in ("A cute banana", "A rude banana")]
    assert len({(await client.get(path)).content for path in paths}) == 2


async def test_a_picture_needs_no_key_and_is_kept_for_ever(client: httpx2.AsyncClient, key: Key) -> None:
    answer = await client.get(await _path(client, key))
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["etag"].strip('"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("sent", ["{}", "W/{}", '"another", {}', '"another",{} , W/"third"', "*"])
async def test_who_has_the_picture_gets_304_and_nothing_is_drawn(
    client: httpx2.AsyncClient, key: Key, drawn: list[str], sent: str
) -> None:
    path = await _path(client, key)
    first = await client.get(path)
    drawn.clear()
    again = await client.get(path, headers={"If-None-Match": sent.format(first.headers["etag"])})
    assert (again.status_code, again.content) == (304, b"")
    assert {again.headers[name] == first.headers[name] for name in ("etag", "cache-control")} == {True}
    assert drawn == []


@pytest.mark.parametrize("sent", ['"another"', "another", '""', ""])
async def test_who_has_another_picture_gets_this_one(client: httpx2.AsyncClient, key: Key, sent: str) -> None:
    path = await _path(client, key)
    answer = await client.get(path, headers={"If-None-Match": sent})
    assert (answer.status_code, answer.content) == (200, (await client.get(path)).content)


async def test_each_picture_has_an_etag_of_its_own(client: httpx2.AsyncClient, key: Key) -> None:
    paths = [await _path(client, key) for _ in range(2)]
    assert len({(await client.get(path)).headers["etag"] for path in paths}) == 2


async def test_a_generation_that_nobody_looks_at_is_not_drawn(
    client: httpx2.AsyncClient, key: Key, drawn: list[str]
) -> None:
    path = await _path(client, key)
    assert drawn == []
    await client.get(path)
    assert drawn == ["A cute banana"]


async def test_head_answers_as_get_does_without_the_picture(client: httpx2.AsyncClient, key: Key) -> None:
    path = await _path(client, key)
    shown, told = await client.get(path), await client.head(path)
    assert as_seen(told) == (200, as_seen(shown)[1], b"")
    assert (await client.head(path, headers={"If-None-Match": shown.headers["etag"]})).status_code == 304


async def _undelivered(database: asyncpg.Connection, key: Key) -> str:
    generation_id = new_timed_id("gen", now=0)
    await database.execute(
        "insert into generations (id, key_id, prompt, size, provider, status)"
        " values ($1, $2, 'a', '64x64', 'stub', 'processing')",
        generation_id,
        key.id,
    )
    return generation_id


async def test_unknown_undelivered_and_malformed_ids_are_404_in_the_same_bytes(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    known = (await generate(client, key)).json()["id"]
    malformed = ["gen_", "not-an-id", key.id, known.upper(), known[:-1], f"{known}0", f"%20{known}", "%FF", "0" * 5000]
    ids = [UNKNOWN_ID, await _undelivered(database, key), f"gen_{'0' * 20}", *malformed]
    answers = [await client.get(f"/v1/images/{each}.png") for each in ids]
    assert (answers[0].status_code, answers[0].json()["code"]) == (404, "image_not_found")
    assert answers[0].headers["cache-control"] == "no-store"
    assert [as_seen(answer) for answer in answers] == [as_seen(answers[0])] * len(ids)


async def test_an_unknown_picture_is_404_even_to_who_claims_to_have_it(client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"/v1/images/{UNKNOWN_ID}.png", headers={"If-None-Match": "*"})
    assert answer.status_code == 404


@pytest.mark.parametrize("ending", [".jpg", ".PNG", ".png.jpg", "", ".png/", ".png%00", ".png%0A", "%2Fpng"])
async def test_no_other_ending_shows_the_picture(client: httpx2.AsyncClient, key: Key, ending: str) -> None:
    path = await _path(client, key)
    assert (await client.get(path.removesuffix(".png") + ending)).status_code == 404


async def test_the_picture_of_a_revoked_key_is_still_shown(
    client: httpx2.AsyncClient, account: Account, key: Key
) -> None:
    path = await _path(client, key)
    await account.revoke_key(key)
    assert (await client.get(path)).status_code == 200


async def test_what_finds_the_drawing_queue_full_is_503_and_who_waits_gets_the_picture(
    start: Start, key: Key, monkeypatch: pytest.MonkeyPatch, free: threading.Event
) -> None:
    def draw_when_free(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        assert free.wait(30)
        return draw_png(prompt, width=width, height=height, model=model)

    monkeypatch.setattr("app.providers.stub.draw_png", draw_when_free)
    client = await start(drawing_queue_max=1)
    room = max(1, (os.cpu_count() or 1) - 1) + 1  # one in each thread, and one that waits
    paths = await image_paths(client, key, room + 3)
    calls = [asyncio.ensure_future(client.get(path)) for path in paths]
    async with asyncio.timeout(PATIENCE_SECONDS):
        refused = [await each for _, each in zip(range(3), asyncio.as_completed(calls), strict=False)]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(503, "unavailable")] * 3
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert (await client.get("/health")).status_code == 200
    free.set()
    assert Counter(answer.status_code for answer in await asyncio.gather(*calls)) == {200: room, 503: 3}
    assert {(await client.get(path)).status_code for path in paths} == {200}
