"""Bytes that a client sent and that a request needs for a while."""

from functools import cached_property
from hashlib import sha256


class Blob:
    """Bytes that do not change, freed when nothing refers to them any more."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)
        """In bytes."""

    @cached_property
    def sha256(self) -> bytes:
        return sha256(self._content).digest()

    async def read(self) -> bytes:
        """All of them."""
        return self._content


class BlobSpace:
    """Where blobs are kept."""

    async def keep(self, content: bytes) -> Blob:
        """A Blob of these bytes."""
        return Blob(content)
