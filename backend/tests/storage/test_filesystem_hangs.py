"""A disk that hangs: only its own callers wait, and the queue is bounded."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from app.storage import StoreBusy, Stored, StoreUnavailable
from app.storage.filesystem import FilesystemStore
from tests.harness import PATIENCE_SECONDS

NAME = "gen_01kapn5vfe28fm63cjp43w44255s68.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


async def test_a_hanging_disk_blocks_neither_the_event_loop_nor_fills_a_queue_beyond_its_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemStore(folder, threads=2, queue_max=3)
    await store.open()
    await store.put(NAME, b"content")
    stored = await store.get(NAME)
    assert stored is not None
    thaw, fsync = threading.Event(), os.fsync

    def hanging(descriptor: int) -> None:
        thaw.wait()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", hanging)
    puts = [asyncio.create_task(store.put(NAME, b"content")) for _ in range(8)]
    reading = asyncio.ensure_future(anext(stored.chunks))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = [put.done() and isinstance(put.exception(), StoreUnavailable) for put in puts]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await reading == b"content"
    finally:
        thaw.set()
    assert refused == [False] * 5 + [True] * 3
    await asyncio.gather(*puts[:5])
    await store.put(NAME, b"content")
    await store.close()


async def test_however_many_readers_hang_an_image_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FilesystemStore(folder, threads=1, queue_max=3)
    await store.open()
    await store.put(NAME, b"content")
    thaw, fstat = threading.Event(), os.fstat

    def hanging(descriptor: int) -> os.stat_result:
        thaw.wait()
        return fstat(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", hanging)
        gets = [asyncio.create_task(store.get(NAME)) for _ in range(5)]
        await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await store.put(NAME, b"another")
            assert [get.done() for get in gets] == [False] * 4 + [True], "the queue of the readers is full"
        finally:
            thaw.set()
        outcomes = await asyncio.gather(*gets, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Stored] * 4 + [StoreBusy]
    await store.close()


async def test_a_cancelled_put_releases_its_slot_when_the_work_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemStore(folder, threads=1, queue_max=0)
    await store.open()
    began, thaw, fsync = threading.Event(), threading.Event(), os.fsync

    def hanging(descriptor: int) -> None:
        began.set()
        thaw.wait()
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", hanging)
        put = asyncio.create_task(store.put(NAME, b"content"))
        await asyncio.to_thread(began.wait)
        put.cancel()
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await store.put(NAME, b"content")
        thaw.set()
        await store.close()
    reopened = FilesystemStore(folder)
    await reopened.open()
    assert await reopened.get(NAME) is not None
    await reopened.close()
