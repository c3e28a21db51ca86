"""Two stores as one, while images move from one to the other."""

from dataclasses import dataclass

from app.storage import PROBE_BYTES, PresignedUrl, Store, Stored
from app.storage.health import CheckedStore


@dataclass(frozen=True)
class StorePair:
    """A Store: an image is put into `first`, looked for there and then in `second`, and deleted in both. Only what is
    in `first` has a presigned URL, and only `first` is checked.
    """

    first: CheckedStore
    second: Store

    async def put(self, name: str, content: bytes) -> None:
        await self.first.put(name, content)

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        stored = await self.first.get(name, start=start, end=end)
        return await self.second.get(name, start=start, end=end) if stored is None else stored

    async def presigned_url(self, name: str) -> PresignedUrl | None:
        url = await self.first.presigned_url(name)
        return None if url is None or await self.first.get(name, end=0) is None else url

    async def delete(self, name: str) -> None:
        # After `nanobanana images copy` has kept a copy, it looks for the image once more where it came from, and
        # deletes the copy if that is gone. If it was still there, it is deleted after that, and so is the copy if that
        # deletion comes last. Either store may be the one that is copied from: hence both orders.
        for store in (self.second, self.first, self.second):
            await store.delete(name)

    async def check(self, *, size: int = PROBE_BYTES) -> None:
        await self.first.check(size=size)

    async def free_bytes(self) -> int | None:
        return await self.first.free_bytes()
