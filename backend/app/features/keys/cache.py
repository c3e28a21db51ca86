"""Who called a moment ago: a hint that saves a SELECT, and never decides."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from app.features.keys.service import Caller, InvalidApiKey

ENTRIES_MAX = 100_000
KNOWN_SECONDS = 10.0
UNKNOWN_SECONDS = 1.0

_NOTHING: tuple[Caller | None, float] = (None, 0.0)


class CallerCache:
    """Callers by the SHA-256 of their key, also that there is none. Bounded in number and time.

    What it says may be out of date by `KNOWN_SECONDS`: whoever acts on it lets the database decide in the same
    statement, as the ledger does.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, entries_max: int = ENTRIES_MAX) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self._entries: dict[bytes, tuple[Caller | None, float]] = {}
        self._asking: dict[bytes, asyncio.Task[Caller | None]] = {}

    def get(self, key_hash: bytes) -> Caller | None:
        """Who has this key, if that is remembered. Raises InvalidApiKey where it is remembered that nobody has."""
        caller, good_until = self._entries.get(key_hash, _NOTHING)
        if good_until <= self._clock():
            return None
        if caller is None:
            raise InvalidApiKey
        return caller

    async def fetch_once(self, key_hash: bytes, find: Callable[[bytes], Awaitable[Caller | None]]) -> Caller | None:
        """The caller that `find` returns, which is remembered. Calls for the same key at the same time share one
        `find`: when an entry expires while a thousand calls of its key are at work, there is one query.
        """
        asking = self._asking.get(key_hash)
        if asking is None:
            asking = self._asking[key_hash] = asyncio.create_task(self._fetch(key_hash, find))
        return await asyncio.shield(asking)  # a call that is cancelled does not cancel the others' query

    async def _fetch(self, key_hash: bytes, find: Callable[[bytes], Awaitable[Caller | None]]) -> Caller | None:
        try:
            caller = await find(key_hash)
        finally:
            del self._asking[key_hash]
        self.put(key_hash, caller)
        return caller

    def put(self, key_hash: bytes, caller: Caller | None) -> None:
        """Remembers who has this key; None for nobody, more briefly."""
        self._entries.pop(key_hash, None)
        while len(self._entries) >= self._entries_max:
            del self._entries[next(iter(self._entries))]
        seconds = UNKNOWN_SECONDS if caller is None else KNOWN_SECONDS
        self._entries[key_hash] = caller, self._clock() + seconds
