"""What crosses the ledger's door: entries in, outcomes out."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from app.core.errors import ApiError, Invalid, Unavailable


class IdempotencyKeyReused(ApiError):
    status, title, code = Invalid.status, Invalid.title, "idempotency_key_reused"
    detail = "This Idempotency-Key came with another request before"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"x-should-retry": "false"}


class OutcomeUnknown(Unavailable):
    code = "outcome_unknown"
    detail = "It cannot be told whether this was recorded; retry with the same Idempotency-Key"


class Recorded(NamedTuple):
    """A generation that is on disk. `replayed` says that it was recorded before, for an earlier request."""

    id: str
    created_at: datetime
    replayed: bool = False


@dataclass(slots=True)
class Entry:
    """A delivered generation that is to be recorded.

    `scope` (32 bytes, or None without an idempotency key) names the claim that goes with it, `fingerprint` (32 bytes)
    the request that may claim it again. `sent` says that it was handed to a connection, and nobody has told that it was
    not written.
    """

    id: str
    key_id: str
    prompt: str
    size: str
    provider: str
    scope: bytes | None = None
    fingerprint: bytes | None = None
    deadline: float = 0
    sent: bool = False
    outcome: "asyncio.Future[Recorded]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def row(self) -> tuple[str, str, str, str, str, bytes | None, bytes | None]:
        """Its columns, in the order of the statement's parameters."""
        return self.id, self.key_id, self.prompt, self.size, self.provider, self.scope, self.fingerprint

    @property
    def settled(self) -> bool:
        return self.outcome.done()

    def succeed(self, recorded: Recorded) -> None:
        if not self.outcome.done():
            self.outcome.set_result(recorded)

    def fail(self, error: ApiError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
