"""What is handed to the ledger and waits there for its outcome."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar
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

    def drop_error(self) -> None:
        """Forgets the error that is its outcome. It stays done, whatever becomes of it."""
        self.outcome = asyncio.get_running_loop().create_future()
        self.outcome.cancel()

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


class Queueing(NamedTuple):
    """How a request waits for a worker: in which class, and for how long at most before it is cancelled. `attempt` says
    how often workers have taken it.
    """

    job_class: Literal["now", "batch"]
    expires_seconds: float
    attempt: int = 1


class Left(NamedTuple):
    """What an account and its key may still spend once a request's price is held, in millionths of the currency: of its
    credit and allowance, None where it pays afterwards; and of the caps, None where there are none.
    """

    credit: int | None
    cap: int | None


OnHeld = Callable[[Left], None]
"""Called once the price of a request is held."""


class Recorded(NamedTuple):
    """A request that is on disk: the ids of its images, and when it was recorded. `is_replay` says that an earlier
    request with the same Idempotency-Key was recorded, and not this one; `is_unfinished`, that its images are not
    delivered yet. `left` is None for what has no price, or was recorded before.
    """

    ids: Sequence[str]
    created_at: datetime
    is_replay: bool = False
    is_unfinished: bool = False
    left: Left | None = None


class IdempotencyClaim(NamedTuple):
    """The use of an idempotency key: `scope` (32 bytes) names key, account, environment and route.

    The first of `fingerprints` (32 bytes each) is recorded; a claim that was recorded with any of them is of the same
    request.
    """

    scope: bytes
    fingerprints: Sequence[bytes]


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
    quality: str
    list_price: int
    extra: str | None
    lease: UUID | None
    lease_seconds: float | None
    scope: bytes | None
    fingerprint: bytes | None


RECORD_WORDS = frozenset(
    {"id", "request_id", "key_id", "revision", "size", "format", "model", "provider", "quality", "list_price"}
)
"""The columns whose values `record.sql` takes as one text, with a space between: the driver encodes arrays slowly."""
RECORD_DEFAULTS: Mapping[str, str | int] = {"quality": "auto", "list_price": 0}
"""The columns that `record.sql` takes as null where every value is this."""


class QueuedRow(NamedTuple):
    """One image of a request that waits for a worker, with the names of the parameters of `record_queued.sql`."""

    id: str
    request_id: str
    key_id: str
    revision: int
    prompt: str
    size: str
    format: ImageFormat
    model: str
    provider: str
    quality: str
    list_price: int
    extra: str | None
    class_: str
    expires_seconds: float
    scope: bytes | None
    fingerprint: bytes | None


class SettleRow(NamedTuple):
    """The end of one image, with the names of the parameters of `settle_jobs.sql`."""

    id: str
    request_id: str
    key_id: str
    lease: UUID
    error: str | None
    route: str | None
    provider: str | None
    tries: int | None
    cost: int | None
    provider_request_id: str | None
    scope: bytes | None
    class_: str | None


class ImageEnd(NamedTuple):
    """How one image ended: with the code of its error, or delivered; by which route and provider, after how many calls,
    and what these cost, in millionths of the currency. None for what is not known.
    """

    error: str | None = None
    route: str | None = None
    provider: str | None = None
    tries: int | None = None
    cost: int | None = None
    provider_request_id: str | None = None


_DELIVERED = ImageEnd()


@dataclass(slots=True)
class PendingRecord(Pending[Recorded]):
    """A request that is to be recorded: as delivered; or, with a lease, as still to be drawn; or, with `queueing`, as
    waiting for a worker.

    `ids` are those of its images; the first names the request. `revision` is the one of its key that admission saw.
    `list_price` and `price`, which is charged, are for one image, in millionths of the currency. `extra` is the
    JSON of columns that few rows have: `inputs` and `art` of an image that is made from others, and `options` of one
    that waits. `claim` is None without an Idempotency-Key.
    """

    ids: Sequence[str]
    key_id: str
    revision: int
    prompt: str
    size: str
    format: ImageFormat
    model: str
    provider: str
    quality: str = "auto"
    list_price: int = 0
    extra: str | None = None
    lease: Lease | None = None
    claim: IdempotencyClaim | None = None
    queueing: Queueing | None = None
    price: int = 0

    @property
    def id(self) -> str:
        return self.ids[0]

    @property
    def scope(self) -> bytes | None:
        return self.claim and self.claim.scope

    @property
    def held_price(self) -> int:
        """What each image holds until it has ended."""
        if self.lease is None and self.queueing is None:
            raise ValueError("a request with a price is charged when it is settled, so it needs a lease")
        return self.price

    @property
    def attempt(self) -> int:
        """How often workers have taken it, this time included: a part of the names of its images."""
        return 1 if self.queueing is None else self.queueing.attempt

    @property
    def rows(self) -> Sequence["RecordRow | QueuedRow"]:
        scope, fingerprint = (self.claim.scope, self.claim.fingerprints[0]) if self.claim else (None, None)
        if self.queueing is None:
            row: type[RecordRow | QueuedRow] = RecordRow
            waiting: tuple[Any, Any] = self.lease or (None, None)
        else:
            row, waiting = QueuedRow, (self.queueing.job_class, self.queueing.expires_seconds)
        first = row(
            self.ids[0],
            self.ids[0],
            self.key_id,
            self.revision,
            self.prompt,
            self.size,
            self.format,
            self.model,
            self.provider,
            self.quality,
            self.list_price,
            self.extra,
            waiting[0],
            waiting[1],
            scope,
            fingerprint,
        )
        return [first] if len(self.ids) == 1 else [first._replace(id=each) for each in self.ids]


@dataclass(slots=True)
class PendingSettlement(Pending[None]):
    """The end of a request that has a lease. `ends` has the end of each image, by id; one that is not in it is
    delivered.
    """

    recorded: PendingRecord
    ends: Mapping[str, ImageEnd]

    @property
    def id(self) -> str:
        return self.recorded.id

    @property
    def status(self) -> str:
        """What the request's first image becomes."""
        return "failed" if self.ends.get(self.id, _DELIVERED).error else "delivered"

    @property
    def lease(self) -> UUID:
        if self.recorded.lease is None:
            raise ValueError("a request without a lease has been settled by being recorded")
        return self.recorded.lease.token

    @property
    def rows(self) -> Sequence[SettleRow]:
        recorded, lease = self.recorded, self.lease
        rest = recorded.scope, recorded.queueing and recorded.queueing.job_class
        return [
            SettleRow(each, recorded.id, recorded.key_id, lease, *self.ends.get(each, _DELIVERED), *rest)
            for each in recorded.ids
        ]


@dataclass(slots=True)
class PendingSend(Pending[None]):
    """Images that a worker is about to hand to a provider."""

    ids: Sequence[str]
    lease: UUID


@dataclass(slots=True)
class PendingQuery(Pending[Sequence[Any]]):
    """One statement of those that are not gathered into batches, by name, and its values: its rows are the outcome."""

    statement: str
    values: Mapping[str, Any]


Work = PendingRecord | PendingSettlement | PendingSend | PendingQuery
