"""A disk that hangs: only its own callers wait; readers are refused beyond a bound, and what is written waits."""

import asyncio
import os
import threading
from pathlib import Path
from types import NoneType

import pytest
from app.storage import StoreBusy, Stored
from app.storage.filesystem import FilesystemStore
from tests.harness import PATIENCE_SECONDS

NAME = "gen_01kapn5vfe28fm63cjp43w44255s68.png"
OTHER = "gen_01kapn5vfe28fm63cjp43w44255s69.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


async def test_while_the_disk_hangs_readers_go_on_and_every_image_waits_to_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemStore(folder, threads=2, queue_max=0)
    await store.open()
    await store.put(NAME, b"content")
    stored = await store.get(NAME)
    assert stored is not None
    thaw, fsync = threading.Event(), os.fsync

    def hanging(descriptor: int) -> None:
        thaw.wait()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", hanging)
    puts = [asyncio.create_task(store.put(NAME, b"content")) for _ in range(50)]
    deleting = asyncio.create_task(store.delete(NAME))
    reading = asyncio.ensure_future(anext(stored.chunks))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await reading == b"content"
        assert not any(each.done() for each in (*puts, deleting))
    finally:
        thaw.set()
    await asyncio.gather(*puts, deleting)
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


async def test_a_put_that_is_cancelled_while_the_disk_hangs_gives_its_turn_to_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemStore(folder, threads=1)
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
        further = [asyncio.create_task(store.put(name, b"another")) for name in (OTHER, OTHER, OTHER)]
        await asyncio.sleep(0)
        further[1].cancel()
        thaw.set()
        outcomes = await asyncio.gather(put, *further, return_exceptions=True)
        await store.close()
    assert [type(outcome) for outcome in outcomes] == [
        asyncio.CancelledError,
        NoneType,
        asyncio.CancelledError,
        NoneType,
    ]
    reopened = FilesystemStore(folder)
    await reopened.open()
    for name, size in ((NAME, len(b"content")), (OTHER, len(b"another"))):
        stored = await reopened.get(name)
        assert stored is not None
        assert stored.size == size
    await reopened.close()
