"""What the server's verdict on a request means for its caller."""

import asyncpg

from app.core.errors import ApiError, Invalid, Unavailable
from app.generations.errors import (
    BudgetExceeded,
    CallerChangedError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InsufficientCredit,
    InvalidApiKey,
    QueueFull,
)
from app.generations.ledger.queue import Left, PendingRecord, Recorded

AGAIN = "again"
"""The verdict on a request that did not fit beside others, of which it is not known whether they take the room."""
DATA_CLASS = "22"
"""What the sqlstates of values begin with that PostgreSQL cannot store."""


def answer_from(record: PendingRecord, there: asyncpg.Record) -> bool:
    """Answers by the request that has the claim; False where its lease is over, and so it answers nobody."""
    if record.claim is not None and there["fingerprint"] not in record.claim.fingerprints:
        record.fail(IdempotencyKeyReused())
    elif there["status"] == "delivered":
        ids = [there["id"], *(there["other_ids"] or ())]
        record.succeed(Recorded(ids, there["created_at"], is_replay=True))
    elif there["status"] not in {"queued", "processing"} or there["lapsed"]:
        return False
    elif there["is_asynchronous"] or record.queueing is not None:
        ids = [there["id"], *(there["other_ids"] or ())]
        record.succeed(Recorded(ids, there["created_at"], is_replay=True, is_unfinished=True))
    else:
        record.fail(IdempotencyKeyInUse())
    return True


def not_admitted(verdict: asyncpg.Record) -> Exception:
    """Why the key may not do it. Null is a key whose row was skipped because another transaction holds it."""
    if verdict["active"] is None:
        return Unavailable()
    return CallerChangedError() if verdict["active"] else InvalidApiKey()


def refusal_of(verdict: asyncpg.Record) -> ApiError | None:
    """Why the request was not written, unless it was before; None where nothing refuses it."""
    if verdict.get("fits") is False:
        return QueueFull()
    match verdict.get("refusal"):
        case "insufficient_credit":
            return InsufficientCredit()
        case "account_cap":
            return BudgetExceeded(cap="account", ends_at=verdict["account_ends_at"])
        case "key_cap":
            return BudgetExceeded(cap="key", ends_at=verdict["key_ends_at"])
    return None


def left_of(record: PendingRecord, verdict: asyncpg.Record) -> Left | None:
    """What is left once the request's price is held."""
    return Left(verdict["left_credit"], verdict["left_cap"]) if record.price else None


def refuse(record: PendingRecord, sqlstate: str) -> None:
    """Fails the request that the server has refused with this, unless it was sent before."""
    if record.was_sent:
        return  # an earlier send may have been committed: only what is found decides, or the deadline
    if sqlstate.startswith(DATA_CLASS):
        record.fail(Invalid([{"pointer": "#", "detail": "Holds a value that cannot be stored"}]))
    else:
        record.fail(Unavailable())
