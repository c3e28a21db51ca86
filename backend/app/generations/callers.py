"""Callers that were looked up a moment ago: a cache that saves a SELECT and decides nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from app.generations.errors import InvalidApiKey
from app.generations.spec import Caller

ENTRIES_MAX = 100_000
KNOWN_SECONDS = 10.0
UNKNOWN_SECONDS = 1.0


class CallerCache:
    """Callers by the SHA-256 of their key, and hashes of keys that do not exist. Bounded in number and in time.

    An entry may be out of date by `KNOWN_SECONDS`: code that acts on it must let the database check the key in the
    same statement, as the ledger does.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, entries_max: int = ENTRIES_MAX) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self._entries: dict[bytes, tuple[Caller | None, float]] = {}
        self._fetches: dict[bytes, asyncio.Task[Caller | None]] = {}

    def get(self, key_hash: bytes) -> Caller | None:
        """The cached caller; None where the cache has no entry. Raises InvalidApiKey for a key cached as unknown."""
        entry = self._entries.get(key_hash)
        if entry is None or entry[1] <= self._clock():
            return None
        caller, _ = entry
        if caller is None:
            raise InvalidApiKey
        return caller

    async def fetch_once(self, key_hash: bytes, find: Callable[[bytes], Awaitable[Caller | None]]) -> Caller | None:
        """The caller that `find` returns, which is cached. Parallel calls for one key share one call of `find`, so that
        the database gets one query when the entry of a busy key expires.
        """
        fetch = self._fetches.get(key_hash)
        if fetch is None:
            fetch = self._fetches[key_hash] = asyncio.create_task(self._fetch(key_hash, find))
        return await asyncio.shield(fetch)  # a call that is cancelled does not cancel the others' query

    async def _fetch(self, key_hash: bytes, find: Callable[[bytes], Awaitable[Caller | None]]) -> Caller | None:
        try:
            caller = await find(key_hash)
        finally:
            del self._fetches[key_hash]
        self.put(key_hash, caller)
        return caller

    def put(self, key_hash: bytes, caller: Caller | None) -> None:
        """Caches the caller for KNOWN_SECONDS; None, for a key that does not exist, for UNKNOWN_SECONDS."""
        self._entries.pop(key_hash, None)
        while len(self._entries) >= self._entries_max:
            del self._entries[next(iter(self._entries))]
        seconds = UNKNOWN_SECONDS if caller is None else KNOWN_SECONDS
        self._entries[key_hash] = caller, self._clock() + seconds
