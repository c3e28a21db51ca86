"""Whether images can be stored: after a write that failed no image is bought until one can be stored again."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from app.core.cancellation import raise_if_cancelled
from app.core.logs import logger
from app.core.settings import ConfigurationError
from app.storage import PresignedUrl, Store, StoreBusy, Stored, StoreUnavailable

PROBE_SECONDS = 3.0
"""The pause between two probes of a store that fails."""
_FREE_SECONDS = 10


class CheckedStore(Store, Protocol):
    """A store that can be tried out."""

    async def check(self, *, size: int) -> None:
        """Writes, reads and deletes so many bytes.

        Raises ConfigurationError or StoreUnavailable, with one sentence, where that fails.
        """
        ...

    async def free_bytes(self) -> int | None:
        """What may still be written, where that is known."""
        ...


class MonitoredStore:
    """A Store that remembers whether it can be written.

    A write that fails makes it fail, for this process. From then on a task writes as many bytes as that write had, at
    once and then every PROBE_SECONDS, until that succeeds: a disk that is nearly full takes small files only.
    """

    def __init__(self, store: CheckedStore) -> None:
        self._store = store
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the last write failed, and no probe has succeeded since."""
        return self._probing is not None and not self._probing.done()

    async def put(self, name: str, content: bytes) -> None:
        try:
            await self._store.put(name, content)
        except StoreBusy:
            raise
        except StoreUnavailable:
            if not self.is_failing:
                logger.error("store_failing", every_time=True)
                self._probing = asyncio.create_task(self._probe(len(content)))
            raise

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        return await self._store.get(name, start=start, end=end)

    async def presigned_url(self, name: str) -> PresignedUrl | None:
        return await self._store.presigned_url(name)

    async def delete(self, name: str) -> None:
        await self._store.delete(name)

    async def watch_free_bytes(self, show: Callable[[int], object]) -> None:
        """Calls `show` with what may still be written, where that is known, now and then, without end."""
        while True:
            with suppress(OSError, StoreUnavailable):
                free = await self._store.free_bytes()
                if free is not None:
                    show(free)
            await asyncio.sleep(_FREE_SECONDS)

    async def close(self) -> None:
        """Ends the probes."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})

    async def _probe(self, size: int) -> None:
        while True:
            try:
                await self._store.check(size=size)
            except (ConfigurationError, StoreUnavailable):
                raise_if_cancelled()
                await asyncio.sleep(PROBE_SECONDS)
            else:
                logger.info("store_recovered")
                return
