"""A disk that is slower than the images come, or hangs: what was bought is kept, and little more is bought."""

import asyncio
import os
import threading

import asyncpg
import httpx2
import pytest
from app.storage import health
from app.storage.filesystem import FilesystemStore
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.usage.recorded import total
from tests.harness import generate, looks


class Frozen:
    """The disk: what is to be synced waits until it thaws."""

    def __init__(self) -> None:
        self.waiting = 0
        self._thaw, self._fsync = threading.Event(), os.fsync

    def freeze(self, patch: pytest.MonkeyPatch) -> None:
        put = FilesystemStore.put

        async def counted(store: FilesystemStore, name: str, content: bytes) -> None:
            self.waiting += 1
            await put(store, name, content)

        patch.setattr(FilesystemStore, "put", counted)
        patch.setattr(os, "fsync", self._fsync_later)

    def _fsync_later(self, descriptor: int) -> None:
        self._thaw.wait()
        self._fsync(descriptor)

    def thaw(self) -> None:
        self._thaw.set()

    async def until_waiting(self, number: int) -> None:
        for _ in looks():
            if self.waiting == number:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.waiting} of {number} images wait for the disk")


@pytest.fixture
def frozen() -> Frozen:
    return Frozen()


async def _freeze(there: Painted, frozen: Frozen, patch: pytest.MonkeyPatch) -> None:
    """From here on: the folders for images are there, and synced."""
    assert (await generate(there.client, there.key)).status_code == 200
    there.provider.seen.clear()
    frozen.freeze(patch)


async def test_while_very_many_images_wait_for_the_disk_none_is_bought_and_those_are_delivered(
    start: Start, database: asyncpg.Connection, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PUTS_MAX", 3)
    async with painted(start) as there:
        await _freeze(there, frozen, monkeypatch)
        waiting = [asyncio.create_task(generate(there.client, there.key)) for _ in range(3)]
        try:
            await frozen.until_waiting(3)
            refused = await generate(there.client, there.key)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert len(there.provider.seen) == 3, "an image was bought that could not be kept soon"
        finally:
            frozen.thaw()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
        assert (await generate(there.client, there.key)).status_code == 200
        assert await total(database, there.key) == 5


async def _degraded(client: httpx2.AsyncClient) -> list[str]:
    degraded: list[str] = (await client.get("/ready")).json()["degraded"]
    return degraded


async def test_while_the_disk_hangs_nothing_is_bought_also_once_the_first_image_is_given_up(
    start: Start, database: asyncpg.Connection, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "HANGING_SECONDS", 0.1)
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.01)
    async with painted(start, generation_deadline_seconds=1) as there:
        await _freeze(there, frozen, monkeypatch)
        first = asyncio.create_task(generate(there.client, there.key))
        try:
            await frozen.until_waiting(1)
            for _ in looks():
                if await _degraded(there.client) == ["store"]:
                    break
                await asyncio.sleep(0.01)
            assert (await generate(there.client, there.key)).status_code == 503
            assert (await first).status_code == 504
            assert await _degraded(there.client) == ["store"], "nothing waits for the disk any more, and it still hangs"
            assert (await generate(there.client, there.key)).status_code == 503
            assert len(there.provider.seen) == 1
        finally:
            frozen.thaw()
        for _ in looks():
            if await _degraded(there.client) == []:
                break
            await asyncio.sleep(0.01)
        assert (await generate(there.client, there.key)).status_code == 200
        assert await total(database, there.key) == 2
