"""What is recorded when a request is accepted: new ids, and the claim of its Idempotency-Key."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from app.catalogue.routing import Plan
from app.core.security import new_timed_id
from app.generations.ledger.queue import IdempotencyClaim, PendingRecord
from app.generations.spec import Caller, GenerationSpec

_LEGACY_MODEL = "nano-banana"
"""The only model of the version before: a request that named it has the fingerprint of one that named none."""


def new_record(
    caller: Caller, spec: GenerationSpec, plan: Plan, *, claim: IdempotencyClaim | None, now: float
) -> PendingRecord:
    """A request that is to be recorded as delivered, with an id for each image that begins with the time `now`. The ids
    are in order, so that the rows say which image of the request each is.
    """
    return PendingRecord(
        sorted([new_timed_id("gen", now=now) for _ in range(spec.count)]),
        caller.key_id,
        caller.revision,
        spec.prompt,
        spec.size,
        spec.format,
        plan.model.name,
        plan.provider,
        plan.quality,
        plan.list_price,
        claim=claim,
    )


def claim_of(
    caller: Caller, spec: GenerationSpec, *, route: str, idempotency_key: str | None, default_model: str
) -> IdempotencyClaim | None:
    """The claim of an idempotency key, if there is one: a later request of the account with the same scope is answered
    by this one, if its fingerprint is one of this one's.

    The first fingerprint is of the request as it was sent, so that a replay outlives what it names; what is left out,
    or asks for nothing, is not in it. The others are of the same request with its default model named or left out.
    """
    if idempotency_key is None:
        return None
    # The id of the account's first user, whose end is the account's: as it was before there were accounts, so that
    # claims of that time are found.
    owner = f"usr_{caller.account_id.removeprefix('acc_')}"
    scope = _digest(owner, caller.environment, route, idempotency_key)
    same = _same_models(spec.model, default_model)
    return IdempotencyClaim(scope, [_fingerprint(replace(spec, model=each)) for each in same])


def _same_models(sent: str | None, default: str) -> Sequence[str | None]:
    """The model as it was sent, and in which other words a request for it can have come."""
    if sent is None:
        return [None, default]
    return [sent, None] if sent in {default, _LEGACY_MODEL} else [sent]


def _fingerprint(spec: GenerationSpec) -> bytes:
    """The SHA-256 of a request, as the version before made it unless the request asks for what that did not know."""
    image, added = (spec.prompt, spec.size, spec.format, str(spec.count)), _added_since(spec)
    return _digest("2", *image, *added) if added else _digest(*image, str(spec.as_bytes))


def _added_since(spec: GenerationSpec) -> Sequence[str]:
    """What the request asks for that the version before did not take."""
    asked = {
        "model": spec.model,
        "quality": None if spec.quality == "auto" else spec.quality,
        "background": "transparent" if spec.background == "transparent" else None,
        "compression": spec.compression,
    }
    return [f"{name} {value}" for name, value in asked.items() if value is not None]


def _digest(*parts: str) -> bytes:
    # As JSON, so that no two lists of parts are written alike.
    return sha256(json.dumps(parts).encode()).digest()
