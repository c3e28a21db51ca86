"""What is recorded when a request is accepted: new ids, and the claim of its Idempotency-Key."""

import json
from hashlib import sha256

from app.core.security import new_timed_id
from app.generations.ledger.queue import PendingRecord
from app.generations.spec import MODEL, Caller, GenerationSpec


def new_record(
    caller: Caller, spec: GenerationSpec, *, provider: str, route: str, idempotency_key: str | None, now: float
) -> PendingRecord:
    """A request that is to be recorded as delivered, with an id for each image that begins with the time `now`. The ids
    are in order, so that the rows say which image of the request each is.

    With an idempotency key it has a scope and a fingerprint: a later request of the account with the same scope is
    answered by this one, if its fingerprint is the same too.
    """
    record = PendingRecord(
        sorted([new_timed_id("gen", now=now) for _ in range(spec.count)]),
        caller.key_id,
        caller.revision,
        spec.prompt,
        spec.size,
        spec.format,
        MODEL,
        provider,
    )
    if idempotency_key is not None:
        # The id of the account's first user, whose end is the account's: as it was before there were accounts, so that
        # claims of that time are found.
        owner = f"usr_{caller.account_id.removeprefix('acc_')}"
        record.scope = _digest(owner, caller.environment, route, idempotency_key)
        record.fingerprint = _digest(spec.prompt, spec.size, spec.format, str(spec.count), str(spec.as_bytes))
    return record


def _digest(*parts: str) -> bytes:
    # As JSON, so that no two lists of parts are written alike.
    return sha256(json.dumps(parts).encode()).digest()
