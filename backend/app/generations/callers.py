"""The callers that API keys stand for: looked up, and remembered for a moment, which decides nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, LargeBinary, any_, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import SessionMaker
from app.core.gathered_calls import GatheredCalls
from app.generations.errors import InvalidApiKey
from app.generations.spec import Caller
from app.models import Account, ApiKey
from app.ratelimit import Limit

ENTRIES_MAX = 100_000
KNOWN_SECONDS = 10.0
UNKNOWN_SECONDS = 1.0
_ASKED_MAX = 64

UNREVOKED = ApiKey.revoked_at.is_(None)
_UNEXPIRED = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
_ACTIVE = UNREVOKED, ApiKey.is_suspended.is_(False), _UNEXPIRED
"""The condition under which a key may call. The ledger's statements check the same when they record."""

_CALLER = (
    select(
        ApiKey.id,
        ApiKey.account_id,
        ApiKey.environment,
        ApiKey.revision,
        func.coalesce(ApiKey.generate_limit, Account.generate_limit_per_key),
        Account.generate_limit,
        func.coalesce(ApiKey.generate_concurrency, Account.generate_concurrency_per_key),
        Account.models,
    )
    .join(Account, Account.id == ApiKey.account_id)
    .where(*_ACTIVE)
)
_CALLERS = _CALLER.add_columns(ApiKey.key_hash).where(
    ApiKey.key_hash == any_(bindparam("key_hashes", type_=ARRAY(LargeBinary)))
)


async def find_caller_where(session: AsyncSession, *which: ColumnElement[bool]) -> Caller | None:
    """The caller of the one active key of which this is true, with its limits; None where there is none."""
    found = (await session.execute(_CALLER.where(*which))).one_or_none()
    return None if found is None else _caller(*found)


async def find_callers(sessions: SessionMaker, key_hashes: Sequence[bytes]) -> Sequence[Caller | None]:
    """The same of the active keys of these hashes, in their order, by one query."""
    async with sessions.begin() as session:
        rows = await session.execute(_CALLERS, {"key_hashes": key_hashes})
        found = {key_hash: _caller(*columns) for *columns, key_hash in rows}
    return [found.get(each) for each in key_hashes]


def _caller(key_id: str, account_id: str, environment: Any, revision: int, *limits: Any) -> Caller:
    limit, account_limit, concurrency, models = limits
    own = _parse_limit(limit), _parse_limit(account_limit), concurrency
    return Caller(key_id, account_id, environment, revision, *own, None if models is None else frozenset(models))


def _parse_limit(text: str | None) -> Limit | None:
    return None if text is None else Limit.parse(text)


FindCallers = Callable[[Sequence[bytes]], Awaitable[Sequence[Caller | None]]]
"""Finds the callers with the active keys of these hashes, in their order."""


class CallerCache:
    """Callers by the SHA-256 of their key, and hashes of keys that do not exist. Bounded in number and in time.

    An entry may be out of date by `KNOWN_SECONDS`: code that acts on it must let the database check the key in the
    same statement, as the ledger does.
    """

    def __init__(
        self, find: FindCallers, *, clock: Callable[[], float] = time.monotonic, entries_max: int = ENTRIES_MAX
    ) -> None:
        self._queries = GatheredCalls(find, most=_ASKED_MAX)
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

    async def fetch(self, key_hash: bytes) -> Caller | None:
        """The caller as the database has it now, which is cached; None for a key that does not exist.

        Parallel calls for one key are one question, so that the entry of a busy key expires for all at once; and what
        is asked for many keys while a query runs is one query.
        """
        fetch = self._fetches.get(key_hash)
        if fetch is None:
            fetch = self._fetches[key_hash] = asyncio.create_task(self._fetch(key_hash))
        return await asyncio.shield(fetch)  # a call that is cancelled does not cancel the others' query

    async def _fetch(self, key_hash: bytes) -> Caller | None:
        try:
            caller = await self._queries.ask(key_hash)
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
