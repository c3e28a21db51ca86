"""Whether images can be stored: after a write that failed no image is bought until one can be stored again."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from app.core.cancellation import raise_if_cancelled
from app.core.logs import logger
from app.core.settings import ConfigurationError
from app.storage import PresignedUrl, Store, Stored, StoreUnavailable

PROBE_SECONDS = 3.0
"""The pause between two probes of a store that fails."""
HANGING_SECONDS = 10.0
"""A store in which no write has ended for so long, while some were under way, hangs."""
PUTS_MAX = 1024
"""Images that are being written or wait for it, from which on no further one should be bought."""
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

    A write that fails, or is given up while the store hangs, makes it fail, for this process. From then on a task
    writes as many bytes as that write had, at once and then every PROBE_SECONDS, until that succeeds: a disk that is
    nearly full takes small files only.

    A put waits for its turn, however many wait before it: its image may have been paid. What is bounded is how many
    are bought meanwhile, by `takes_more`.
    """

    def __init__(self, store: CheckedStore) -> None:
        self._store = store
        self._probing: asyncio.Task[None] | None = None
        self._puts = 0
        self._ended_at = 0.0  # the last put; or when the first of those under way began, if that was later

    @property
    def is_failing(self) -> bool:
        """Whether the last write failed, and no probe has succeeded since; or whether the store hangs."""
        return self._is_probed or self._hangs

    @property
    def _is_probed(self) -> bool:
        return self._probing is not None and not self._probing.done()

    @property
    def _hangs(self) -> bool:
        return self._puts > 0 and time.monotonic() - self._ended_at > HANGING_SECONDS

    @property
    def takes_more(self) -> bool:
        """Whether an image that is bought now can be expected to be kept: the store does not fail, and fewer than
        PUTS_MAX images are being written or wait for it.
        """
        return self._puts < PUTS_MAX and not self.is_failing

    async def put(self, name: str, content: bytes) -> None:
        if not self._puts:
            self._ended_at = time.monotonic()
        self._puts += 1
        try:
            await self._store.put(name, content)
        except StoreUnavailable:
            self._begin_to_probe(len(content))
            raise
        except asyncio.CancelledError:
            if self._hangs:
                self._begin_to_probe(len(content))
            raise
        else:
            self._ended_at = time.monotonic()
        finally:
            self._puts -= 1

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

    def _begin_to_probe(self, size: int) -> None:
        if not self._is_probed:
            logger.error("store_failing", every_time=True)
            self._probing = asyncio.create_task(self._probe(size))

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
