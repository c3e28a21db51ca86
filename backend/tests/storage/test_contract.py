"""The guarantees of every store."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from app.storage import CHUNK_BYTES, PAGE, ListedStore, Store, Stored, StoreUnavailable
from app.storage.filesystem import FilesystemStore
from app.storage.pair import StorePair
from app.storage.s3 import S3Store
from app.storage.s3_settings import S3Settings
from tests.harness import PATIENCE_SECONDS
from tests.standins.s3 import s3_server

NAME = "gen_01kapn5vfe28fm63cjp43w44255s68.png"
OTHER = "gen_01kapn5vfe28fm63cjp43w44255s69.webp"
SMALL = NAME.replace(".png", ".w256.webp")
CONTENT = bytes(range(10))


@asynccontextmanager
async def filesystem(folder: Path) -> AsyncIterator[Store]:
    store = FilesystemStore(folder / "pictures")
    await store.open()
    yield store
    await store.close()


@asynccontextmanager
async def s3(_: Path) -> AsyncIterator[Store]:
    with s3_server("pictures") as server:
        yield S3Store(S3Settings("pictures", server.key_id, server.secret, server.url, prefix="test/live"))


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[Store]:
    async with filesystem(folder / "first") as first, filesystem(folder / "second") as second:
        assert isinstance(first, FilesystemStore)
        yield StorePair(first, second)


@pytest.fixture(params=[filesystem, s3, pair])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with request.param(tmp_path) as store:
        yield store


async def whole(stored: Stored | None) -> bytes:
    assert stored is not None
    content = b"".join([chunk async for chunk in stored.chunks])
    assert len(content) == stored.end - stored.start
    return content


async def test_a_stored_image_is_read_by_its_name_alone(store: Store) -> None:
    await store.put(NAME, CONTENT)
    stored = await store.get(NAME)
    assert stored is not None
    assert (stored.size, stored.start, stored.end) == (10, 0, 10)
    assert await whole(stored) == CONTENT
    assert await store.get(OTHER) is None


async def test_a_store_has_no_presigned_url_unless_redirects_are_configured(store: Store) -> None:
    assert await store.presigned_url(NAME) is None


@pytest.mark.parametrize("name", [NAME, NAME.replace("png", "jpeg"), OTHER, f"gen_{'z' * 64}.png", SMALL])
async def test_every_image_format_is_stored(store: Store, name: str) -> None:
    await store.put(name, CONTENT)
    assert await whole(await store.get(name)) == CONTENT


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, (0, 10)),
        (0, 10, (0, 10)),
        (0, 1, (0, 1)),
        (3, 7, (3, 7)),
        (9, 10, (9, 10)),
        (9, None, (9, 10)),
        (5, 11, (5, 10)),
        (5, 10**15, (5, 10)),
        (10, None, (10, 10)),
        (10, 11, (10, 10)),
        (11, 12, (10, 10)),
        (10**15, None, (10, 10)),
        (0, 0, (0, 0)),
        (4, 4, (4, 4)),
        (7, 3, (7, 7)),
    ],
)
async def test_a_part_holds_the_bytes_from_start_to_end(
    store: Store, start: int, end: int | None, expected: tuple[int, int]
) -> None:
    await store.put(NAME, CONTENT)
    stored = await store.get(NAME, start=start, end=end)
    assert stored is not None
    assert (stored.size, stored.start, stored.end) == (10, *expected)
    assert await whole(stored) == CONTENT[slice(*expected)]


async def test_a_part_of_a_missing_image_is_none(store: Store) -> None:
    assert await store.get(NAME, start=5, end=7) is None
    assert await store.get(NAME, start=5, end=5) is None


async def test_an_empty_image_can_be_stored(store: Store) -> None:
    await store.put(NAME, b"")
    assert await whole(await store.get(NAME)) == b""
    assert await whole(await store.get(NAME, start=0, end=5)) == b""


async def test_a_deleted_image_is_gone_and_may_be_deleted_again(store: Store) -> None:
    await store.put(NAME, CONTENT)
    await store.put(OTHER, CONTENT)
    for _ in range(2):
        await store.delete(NAME)
        assert await store.get(NAME) is None
    assert await whole(await store.get(OTHER)) == CONTENT


async def test_concurrent_puts_of_one_name_store_one_of_them_whole(store: Store) -> None:
    contents = [bytes([number]) * (100_000 + number) for number in range(20)]
    seen: list[bytes] = []

    async def look() -> None:
        stored = await store.get(NAME)
        if stored is not None:
            seen.append(await whole(stored))

    await asyncio.gather(*(call for content in contents for call in (store.put(NAME, content), look())))
    assert await whole(await store.get(NAME)) in contents
    assert [content for content in seen if content not in contents] == []


async def test_a_large_image_is_read_in_small_chunks(store: Store) -> None:
    content = os.urandom(20_000_000)
    await store.put(NAME, content)
    stored = await store.get(NAME)
    assert stored is not None
    place = 0
    async for chunk in stored.chunks:
        assert chunk == content[place : place + len(chunk)]
        assert len(chunk) <= 4 * CHUNK_BYTES
        place += len(chunk)
    assert place == len(content)


async def test_slow_and_abandoned_readers_do_not_block_others(store: Store) -> None:
    await store.put(NAME, bytes(1_000_000))
    left_alone = [await store.get(NAME) for _ in range(100)]
    begun = await store.get(NAME)
    assert begun is not None
    await anext(begun.chunks)
    assert len(await whole(await store.get(NAME))) == 1_000_000
    del left_alone, begun


async def test_an_image_deleted_while_it_is_read_is_read_whole_or_the_store_is_unavailable(store: Store) -> None:
    content = bytes(8_000_000)
    await store.put(NAME, content)
    stored = await store.get(NAME)
    assert stored is not None
    read = await anext(stored.chunks)
    await store.delete(NAME)
    try:
        async for chunk in stored.chunks:
            read += chunk
    except StoreUnavailable:
        return
    assert read == content


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../" + NAME,
        "gen_../../../etc/passwd.png",
        "/etc/passwd",
        "/" + NAME,
        "a/" + NAME,
        NAME + "/",
        NAME + "\n",
        NAME.replace(".", "\0."),
        NAME + "\0",
        NAME.upper(),
        NAME.replace("gen_", "key_"),
        NAME.replace(".png", ""),
        NAME.replace(".png", ".svg"),
        NAME.replace(".png", ".png.png"),
        *(SMALL.replace("w256", each) for each in ("w0", "w-1", "256", "W256", "w256.w256", "w256/", "w100000")),
        SMALL.replace(".webp", ""),
        NAME.replace("a", "%2e"),
        NAME.replace("a", "\\"),
        NAME.replace("a", "\u0661"),
        f"gen_{'a' * 300}.png",
        "incoming",
    ],
)
async def test_any_other_name_is_refused(store: Store, name: str) -> None:
    for call in (store.put(name, CONTENT), store.get(name), store.get(name, start=1, end=1), store.delete(name)):
        with pytest.raises(ValueError, match="not the name of an image"):
            await call


@pytest.fixture(params=[filesystem, s3])
async def listed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ListedStore]:
    async with request.param(tmp_path) as store:
        yield store


async def test_every_image_in_a_range_of_names_is_listed_once_in_pages(listed: ListedStore) -> None:
    names = [f"gen_{number:020}.png" for number in range(0, 3 * PAGE, 7)]
    copies = [names[0].replace(".png", ".w64.webp"), names[-1].replace(".png", ".w512.webp")]
    await asyncio.gather(*(listed.put(name, name.encode() * 2) for name in [*names, *copies]))
    pages = [page async for page in listed.pages()]
    assert sorted(each.name for page in pages for each in page) == sorted([*names, *copies])
    assert max(map(len, pages)) <= PAGE
    assert {each.size for page in pages for each in page} == {len(name) * 2 for name in [*names, *copies]}
    assert all(abs(each.changed_at - time.time()) < PATIENCE_SECONDS for page in pages for each in page)
    first, end = names[10], names[20]
    part = [each.name async for page in listed.pages(first=first, end=end) for each in page]
    assert sorted(part) == names[10:20]


@pytest.mark.parametrize("count", [0, 3, 200], ids=["none", "one by one", "as a list"])
async def test_the_sizes_of_images_that_are_there(listed: ListedStore, count: int) -> None:
    names = [f"gen_{number:020}.png" for number in range(count)]
    await asyncio.gather(*(listed.put(name, name.encode()) for name in names[::2]))
    assert await listed.sizes(names) == {name: len(name) for name in names[::2]}
