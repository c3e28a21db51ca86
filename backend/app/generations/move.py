"""Copies all images from one store to another, while servers go on."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from app.core.db import SessionMaker
from app.generations.kept import KeptImage, deleted_names, pages_of_kept, still_kept
from app.providers.structure import BrokenImage, check_whole
from app.storage import ListedStore, StoreUnavailable, read_whole

_AT_A_TIME = 16
"""Images that are copied, and in memory, at a time."""

Trouble = Literal["missing", "damaged", "not readable", "not written"]


@dataclass
class Move:
    """Copies every image that the ledger keeps from `source` to `target`, each whole or not at all, and reads it back.

    What is in the target already, in the same size, is not copied again: after a crash, the next run goes on. Smaller
    copies are left behind, since they are made again.

    An image that a server deletes while it is copied is in neither store afterwards, if the server has both of them
    (`StorePair.delete`). What a crash between the copy and its check has left is deleted at the end of a run.
    """

    sessions: SessionMaker
    source: ListedStore
    target: ListedStore
    images: int = 0
    """Of the ledger, looked at so far."""
    last_id: str = ""
    """Of them."""
    copied: int = 0
    failed: int = 0

    async def run(self) -> AsyncIterator[Mapping[str, Trouble]]:
        """After each thousand images, the names of those of them that are not in the target, and why. Raises
        StoreUnavailable where a store cannot be listed.
        """
        async for images in pages_of_kept(self.sessions):
            failed = await self._copy_page(images)
            if images:
                self.images, self.last_id = self.images + len(images), images[-1].id
                self.failed += len(failed)
                yield failed
        async for files in self.target.pages():
            for name in await deleted_names(self.sessions, [each.name for each in files]):
                await self.target.delete(name)

    async def _copy_page(self, images: Sequence[KeptImage]) -> Mapping[str, Trouble]:
        names = [each.name for each in images]
        here, there = await asyncio.gather(self.source.sizes(names), self.target.sizes(names))
        to_copy = [each for each in images if _is_to_be_copied(each.name, here, there)]
        turns = asyncio.Semaphore(_AT_A_TIME)

        async def copy(image: KeptImage) -> Trouble | None:
            async with turns:
                return await self._copy(image)

        troubles = dict(zip(to_copy, await asyncio.gather(*map(copy, to_copy)), strict=True))
        failed = {image.name: trouble for image, trouble in troubles.items() if trouble is not None}
        self.copied += len(to_copy) - len(failed)
        # What was deleted meanwhile is missing, and has to be.
        kept = await still_kept(self.sessions, failed) if failed else ()
        return {name: trouble for name, trouble in failed.items() if name in kept}

    async def _copy(self, image: KeptImage) -> Trouble | None:
        try:
            content = await read_whole(self.source, image.name)
        except StoreUnavailable:
            return "not readable"
        if content is None:
            return "missing"
        try:
            await asyncio.to_thread(partial(check_whole, content, image.format))
        except BrokenImage:
            return "damaged"
        try:
            return await self._keep(image.name, content)
        except StoreUnavailable:
            return "not written"

    async def _keep(self, name: str, content: bytes) -> Trouble | None:
        await self.target.put(name, content)
        is_same = await read_whole(self.target, name) == content
        # After the copy was kept: a server that deletes the image from now on deletes the copy too.
        is_there = await self.source.get(name, end=0) is not None
        if is_same and is_there:
            return None
        await self.target.delete(name)
        return "not written" if is_there else "missing"


def _is_to_be_copied(name: str, here: Mapping[str, int], there: Mapping[str, int]) -> bool:
    """Whether the target lacks it. What is in the target alone was put there when it was drawn."""
    return name not in there or (name in here and here[name] != there[name])
