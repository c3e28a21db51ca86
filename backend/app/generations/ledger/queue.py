"""What is handed to the ledger and waits there for its outcome."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

from app.core.images import ImageFormat

Outcome = TypeVar("Outcome")


@dataclass(slots=True, kw_only=True)
class Pending(Generic[Outcome]):
    """Work of the ledger, and the outcome that its caller waits for.

    `was_sent` says that the work has been handed to a connection, and that the server has not said since then that
    nothing of it was written.
    """

    deadline: float = 0
    was_sent: bool = False
    outcome: "asyncio.Future[Outcome]" = field(default_factory=asyncio.Future)

    @property
    def is_done(self) -> bool:
        return self.outcome.done()

    def succeed(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Lease(NamedTuple):
    """A worker's right to draw and settle a request: `token` is new for each, and it ends after `seconds`."""

    token: UUID
    seconds: float


class Recorded(NamedTuple):
    """A request that is on disk: the ids of its images, and when it was recorded. `is_replay` says that an earlier
    request with the same Idempotency-Key was recorded, and not this one.
    """

    ids: Sequence[str]
    created_at: datetime
    is_replay: bool = False


class RecordRow(NamedTuple):
    """One image of a request, with the names of the parameters of `record.sql`."""

    id: str
    request_id: str
    key_id: str
    revision: int
    prompt: str
    size: str
    format: ImageFormat
    model: str
    provider: str
    lease: UUID | None
    lease_seconds: float | None
    scope: bytes | None
    fingerprint: bytes | None


RECORD_WORDS = frozenset({"id", "request_id", "key_id", "revision", "size", "format", "model", "provider"})
"""The columns whose values `record.sql` takes as one text, with a space between: the driver encodes arrays slowly."""


class SettleRow(NamedTuple):
    """The end of one image, with the names of the parameters of `settle.sql`."""

    id: str
    request_id: str
    key_id: str
    lease: UUID
    error: str | None
    scope: bytes | None


@dataclass(slots=True)
class PendingRecord(Pending[Recorded]):
    """A request that is to be recorded: as delivered, or, with a lease, as still to be drawn.

    `ids` are those of its images; the first names the request. `revision` is the one of its key that admission saw.
    `scope` (32 bytes, or None without an Idempotency-Key) names the claim that goes with it, `fingerprint` (32 bytes)
    the request that may claim it again.
    """

    ids: Sequence[str]
    key_id: str
    revision: int
    prompt: str
    size: str
    format: ImageFormat
    model: str
    provider: str
    lease: Lease | None = None
    scope: bytes | None = None
    fingerprint: bytes | None = None

    @property
    def id(self) -> str:
        return self.ids[0]

    @property
    def rows(self) -> Sequence[RecordRow]:
        token, seconds = self.lease or (None, None)
        image = self.prompt, self.size, self.format, self.model, self.provider, token, seconds
        claim = self.scope, self.fingerprint
        return [RecordRow(each, self.ids[0], self.key_id, self.revision, *image, *claim) for each in self.ids]


@dataclass(slots=True)
class PendingSettlement(Pending[None]):
    """The end of a request that was recorded with a lease. `errors` has the code of each image that failed, by id; the
    others are delivered.
    """

    recorded: PendingRecord
    errors: Mapping[str, str]

    @property
    def id(self) -> str:
        return self.recorded.id

    @property
    def status(self) -> str:
        """What the request's first image becomes."""
        return "failed" if self.id in self.errors else "delivered"

    @property
    def lease(self) -> UUID:
        if self.recorded.lease is None:
            raise ValueError("a request without a lease has been settled by being recorded")
        return self.recorded.lease.token

    @property
    def rows(self) -> Sequence[SettleRow]:
        recorded, lease = self.recorded, self.lease
        return [
            SettleRow(each, recorded.id, recorded.key_id, lease, self.errors.get(each), recorded.scope)
            for each in recorded.ids
        ]
