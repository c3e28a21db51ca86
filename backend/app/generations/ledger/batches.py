"""Which statements record and settle pending work, and the values that they take of a batch."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from app.generations.ledger.columns import columns
from app.generations.ledger.queue import (
    RECORD_WORDS,
    PendingRecord,
    PendingSettlement,
    QueuedRow,
    RecordRow,
    SettleRow,
)
from app.generations.ledger.statements import (
    RECORD,
    RECORD_PRICED,
    RECORD_PRICED_SKIP_LOCKED,
    RECORD_QUEUED,
    RECORD_QUEUED_PRICED,
    RECORD_QUEUED_PRICED_SKIP_LOCKED,
    RECORD_QUEUED_SKIP_LOCKED,
    RECORD_SKIP_LOCKED,
    SETTLE,
    SETTLE_JOBS,
    SETTLE_JOBS_PRICED,
    SETTLE_PRICED,
    Statement,
)

SKIPPING_LOCKED = {
    RECORD.name: RECORD_SKIP_LOCKED,
    RECORD_PRICED.name: RECORD_PRICED_SKIP_LOCKED,
    RECORD_QUEUED.name: RECORD_QUEUED_SKIP_LOCKED,
    RECORD_QUEUED_PRICED.name: RECORD_QUEUED_PRICED_SKIP_LOCKED,
}
"""What is used in place of a statement, by its name, that has waited for a lock in vain."""
_RECORDING = {
    (False, False): RECORD,
    (False, True): RECORD_PRICED,
    (True, False): RECORD_QUEUED,
    (True, True): RECORD_QUEUED_PRICED,
}
_SETTLING = {
    (False, False): SETTLE,
    (False, True): SETTLE_PRICED,
    (True, False): SETTLE_JOBS,
    (True, True): SETTLE_JOBS_PRICED,
}
"""By whether the request waits for a worker, and whether it was admitted with a price."""


def record_batches(records: Sequence[PendingRecord]) -> Iterable[tuple[Statement, Sequence[PendingRecord]]]:
    """What is to be recorded, each batch with its statement."""
    batches = defaultdict(list)
    for each in records:
        batches[each.queueing is not None, each.price > 0].append(each)
    return [(_RECORDING[kind], batch) for kind, batch in batches.items()]


def settlement_batches(
    settlements: Sequence[PendingSettlement],
) -> Iterable[tuple[Statement, Sequence[PendingSettlement]]]:
    """What is to be settled, each batch with its statement."""
    batches = defaultdict(list)
    for each in settlements:
        batches[each.recorded.queueing is not None, each.recorded.price > 0].append(each)
    return [(_SETTLING[kind], batch) for kind, batch in batches.items()]


def recorded_values(statement: Statement, records: Sequence[PendingRecord], *, waiting_max: int) -> dict[str, Any]:
    """The parameters of a statement that records."""
    values: dict[str, Any] = {"waiting_max": waiting_max}
    if "class" in statement.parameters:
        values |= columns(QueuedRow, records)
    else:
        values |= columns(RecordRow, records, words=RECORD_WORDS)
    if "price" in statement.parameters:
        values["price"] = [each.held_price for each in records for _ in each.ids]
    return values


def settled_values(settlements: Sequence[PendingSettlement]) -> dict[str, Any]:
    """The parameters of a statement that settles."""
    return columns(SettleRow, settlements)
