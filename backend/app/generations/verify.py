"""Compares the ledger with a store: is every image there that should be, and nothing else?"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from app.core.db import SessionMaker
from app.generations.kept import KeptImage, owned_names, pages_of_kept, still_kept
from app.providers.structure import BrokenImage, check_whole
from app.storage import ListedStore, read_whole

LOOK_AGAIN_SECONDS = 30.0
"""How long an image may be on its way: its bytes are deleted before its row says so."""

_ORPHANS_MAX = 100
_ORPHAN_SECONDS_MIN = 3600.0  # no generation lives a third of that

_SUSPECTS_MAX = 10_000
_AT_A_TIME = 100
_pause = asyncio.sleep
_READ_AT_A_TIME = 8


class Fault(NamedTuple):
    """What is wrong with a file: its image is kept by the ledger, and `missing` or `damaged`; or no generation has it.

    A damaged one is not whole by the structure of its format.
    """

    name: str
    kind: Literal["missing", "damaged", "orphaned"]


@dataclass
class Verification:
    """Compares all ids from `first` up to and not including `end`, in constant memory, whatever the store holds.

    What is drawn, deleted or swept meanwhile is no fault: what looks like one is looked at again, LOOK_AGAIN_SECONDS
    later. Every method raises StoreUnavailable.
    """

    sessions: SessionMaker
    store: ListedStore
    first: str = ""
    end: str = "~"
    retention_days: int | None = None
    """After so many days a missing image is due to be deleted, and no fault."""
    reads_all: bool = False
    """Whether each image is read and proved whole."""
    images: int = 0
    """Of the ledger, compared so far."""
    files: int = 0
    """Of the store, compared so far."""

    async def faults(self) -> AsyncIterator[Fault]:
        """Each once: first what is missing or damaged, then what is orphaned."""
        async for missing in self._looked_at_again(self._suspected_missing(), self._still_missing):
            yield Fault(missing, "missing")
        if self.reads_all:
            async for damaged in self._damaged():
                yield Fault(damaged, "damaged")
        async for orphaned in self._looked_at_again(self._suspected_orphans(), self._still_orphaned):
            yield Fault(orphaned, "orphaned")

    def is_plausible(self, orphans: int) -> bool:
        """Whether so few of the files are orphaned that they may be deleted: 100, or a tenth. If more are, another
        deployment may have its images there, or the database may be older than they are.
        """
        return orphans <= max(_ORPHANS_MAX, self.files // 10)

    async def delete_orphans(self) -> int:
        """Deletes the orphaned files that were written an hour ago or earlier; returns how many."""
        deleted, written_before = 0, time.time() - _ORPHAN_SECONDS_MIN
        old = self._suspected_orphans(written_before=written_before)
        async for name in self._looked_at_again(old, self._still_orphaned):
            await self.store.delete(name)
            deleted += 1
        return deleted

    async def _looked_at_again(
        self,
        found: AsyncIterator[set[str]],
        look_again: Callable[[Sequence[str]], Awaitable[set[str]]],
    ) -> AsyncIterator[str]:
        suspects: list[str] = []
        async for names in found:
            suspects += sorted(names)
            if len(suspects) >= _SUSPECTS_MAX:
                async for name in _after_a_while(suspects, look_again):
                    yield name
                suspects.clear()
        async for name in _after_a_while(suspects, look_again):
            yield name

    async def _suspected_missing(self) -> AsyncIterator[set[str]]:
        async for images in pages_of_kept(self.sessions, first=self.first, end=self.end):
            self.images += len(images)
            names = [each.name for each in images]
            yield set(names).difference(await self.store.sizes(names))

    async def _still_missing(self, names: Sequence[str]) -> set[str]:
        kept = await still_kept(self.sessions, names, retention_days=self.retention_days)
        return kept.difference(await self.store.sizes(sorted(kept)))

    async def _suspected_orphans(self, *, written_before: float | None = None) -> AsyncIterator[set[str]]:
        async for files in self.store.pages(first=self.first, end=self.end):
            self.files += len(files)
            names = {each.name for each in files if written_before is None or each.changed_at < written_before}
            yield names - await owned_names(self.sessions, names)

    async def _still_orphaned(self, names: Sequence[str]) -> set[str]:
        there = set(await self.store.sizes(names))
        return there - await owned_names(self.sessions, there)

    async def _damaged(self) -> AsyncIterator[str]:
        async for images in pages_of_kept(self.sessions, first=self.first, end=self.end):
            for start in range(0, len(images), _READ_AT_A_TIME):
                some = images[start : start + _READ_AT_A_TIME]
                are_whole = await asyncio.gather(*map(self._is_whole, some))
                for each, is_whole in zip(some, are_whole, strict=True):
                    if not is_whole:
                        yield each.name

    async def _is_whole(self, image: KeptImage) -> bool:
        """Whether its bytes are all there; a missing one is none of what this says."""
        content = await read_whole(self.store, image.name)
        try:
            if content is not None:
                await asyncio.to_thread(partial(check_whole, content, image.format))
        except BrokenImage:
            return False
        return True


async def _after_a_while(
    suspects: Sequence[str], look_again: Callable[[Sequence[str]], Awaitable[set[str]]]
) -> AsyncIterator[str]:
    if not suspects:
        return
    await _pause(LOOK_AGAIN_SECONDS)
    in_order = sorted(suspects)
    for start in range(0, len(in_order), _AT_A_TIME):
        for name in sorted(await look_again(in_order[start : start + _AT_A_TIME])):
            yield name
