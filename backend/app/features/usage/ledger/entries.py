"""What crosses the ledger's door: entries in, outcomes out."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from app.core.errors import ApiError, Conflict, Invalid, Unavailable
from app.core.images import ImageFormat


class IdempotencyKeyReused(ApiError):
    status, title, code = Invalid.status, Invalid.title, "idempotency_key_reused"
    detail = "This Idempotency-Key came with another request before"
    is_worth_repeating = False


class OutcomeUnknown(Unavailable):
    code = "outcome_unknown"
    detail = "It cannot be told whether this was recorded; retry with the same Idempotency-Key"


class IdempotencyKeyInUse(Conflict):
    code = "idempotency_key_in_use"
    detail = "The first request with this Idempotency-Key is still running"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": "1"}


class LeaseLostError(Exception):
    """Another request has taken over: what was drawn is not delivered."""


class Recorded(NamedTuple):
    """A request that is on disk: its pictures' ids, and when it was admitted. `replayed` says that it was recorded
    before, for an earlier request.
    """

    id: str
    created_at: datetime
    replayed: bool = False
    other_ids: Sequence[str] = ()


Outcome = TypeVar("Outcome")


@dataclass(slots=True, kw_only=True)
class _Waiting(Generic[Outcome]):
    """What is handed over, and the outcome that somebody waits for.

    `sent` says that it was handed to a connection, and nobody has told that it was not written.
    """

    deadline: float = 0
    sent: bool = False
    outcome: "asyncio.Future[Outcome]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def settled(self) -> bool:
        return self.outcome.done()

    def succeed(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


@dataclass(slots=True)
class Entry(_Waiting[Recorded]):
    """A request for pictures that is to be recorded: as delivered, or, with `lease_seconds`, as still to be drawn.

    `id` is that of its first picture and names the request. `scope` (32 bytes, or None without an idempotency key)
    names the claim that goes with it, `fingerprint` (32 bytes) the request that may claim it again.
    """

    id: str
    key_id: str
    prompt: str
    size: str
    provider: str
    scope: bytes | None = None
    fingerprint: bytes | None = None
    other_ids: Sequence[str] = ()
    format: ImageFormat = "png"
    lease_seconds: float | None = None

    @property
    def rows(self) -> "Sequence[Row]":
        """Its pictures' columns, in the order of the statement's parameters."""
        status = "delivered" if self.lease_seconds is None else "processing"
        of_all = self.key_id, self.prompt, self.size, self.format, self.provider, status, self.id
        claim = self.scope, self.fingerprint, self.lease_seconds
        return [(picture_id, *of_all, *claim) for picture_id in (self.id, *self.other_ids)]


Row = tuple[str, str, str, str, str, str, str, str, bytes | None, bytes | None, float | None]


@dataclass(slots=True)
class Settlement(_Waiting[None]):
    """The end of a request that was admitted: all its pictures are delivered, or none of them."""

    admitted: Entry
    is_delivered: bool

    @property
    def id(self) -> str:
        return self.admitted.id

    @property
    def rows(self) -> Sequence[tuple[str, str, str, str, bytes | None]]:
        """Its pictures' columns, in the order of the statement's parameters."""
        entry, status = self.admitted, "delivered" if self.is_delivered else "failed"
        return [(each, entry.id, entry.key_id, status, entry.scope) for each in (entry.id, *entry.other_ids)]
