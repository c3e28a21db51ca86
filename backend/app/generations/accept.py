"""What is recorded when a request is accepted: new ids, and the claim of its Idempotency-Key."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from app.catalogue.routing import Plan
from app.core.security import new_timed_id
from app.generations.ledger.queue import IdempotencyClaim, PendingRecord
from app.generations.spec import Caller, GenerationSpec, SentImage

_LEGACY_MODELS = {None, "nano-banana"}


def new_record(
    caller: Caller,
    spec: GenerationSpec,
    plan: Plan,
    *,
    claim: IdempotencyClaim | None,
    now: float,
    price: int,
    inputs: Sequence[Mapping[str, str]] = (),
    options: Mapping[str, Any] | None = None,
) -> PendingRecord:
    """A request that is to be recorded as delivered, with an id for each image that begins with the time `now`. The ids
    are in order, so that the rows say which image of the request each is. `inputs` is `Inputs.recorded`; `options` is
    what a worker needs besides; `price` is `Generations.price_of`.
    """
    extra: dict[str, Any] = {"inputs": inputs, "art": plan.art or 1} if inputs else {}
    if options:
        extra["options"] = options
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
        json.dumps(extra) if extra else None,
        claim=claim,
        price=price,
    )


def claim_of(
    caller: Caller, spec: GenerationSpec, *, route: str, idempotency_key: str | None
) -> IdempotencyClaim | None:
    """The claim of an idempotency key, if there is one: a later request of the account with the same scope is answered
    by this one, if its fingerprint is one of this one's.

    The fingerprint is of the request as it was sent, so that a replay outlives what it names; what is left out, or asks
    for nothing, is not in it. The second fingerprint is what the version before, which did not know a model's name,
    has recorded for the same request.
    """
    if idempotency_key is None:
        return None
    # The id of the account's first user, whose end is the account's: as it was before there were accounts, so that
    # claims of that time are found.
    owner = f"usr_{caller.account_id.removeprefix('acc_')}"
    scope = _digest(owner, caller.environment, route, idempotency_key)
    image = spec.prompt, spec.size, spec.format, str(spec.count)
    before, added = _digest(*image, str(spec.as_bytes)), _added_since(spec)
    if not added:
        return IdempotencyClaim(scope, [before])
    # A named model's file says how it answers, and may change within the day: of such a request that is not compared.
    answer = () if spec.model else (str(spec.as_bytes),)
    fingerprint = _digest("2", *image, *added, *answer)
    is_known_before = added == [f"model {spec.model}"] and spec.model in _LEGACY_MODELS
    return IdempotencyClaim(scope, [fingerprint, before] if is_known_before else [fingerprint])


def _added_since(spec: GenerationSpec) -> Sequence[str]:
    """What the request asks for that the version before did not take."""
    asked = {
        "model": spec.model,
        "quality": None if spec.quality == "auto" else spec.quality,
        "background": "transparent" if spec.background == "transparent" else None,
        "compression": spec.compression,
    }
    added = [f"{name} {value}" for name, value in asked.items() if value is not None]
    return [*added, *_named_inputs(spec)] if spec.images else added


def _named_inputs(spec: GenerationSpec) -> Sequence[str]:
    """The images that go in, in order: bytes by their hash, so that a claim is small, and all others as sent."""

    def named(sent: SentImage) -> str:
        return sent if isinstance(sent, str) else f"sha256 {sent.sha256.hex()}"

    masks = [] if spec.mask is None else [f"mask {named(spec.mask)}"]
    return [*(f"image {named(each)}" for each in spec.images), *masks, *(["first_frame"] if spec.first_frame else [])]


def _digest(*parts: str) -> bytes:
    # As JSON, so that no two lists of parts are written alike.
    return sha256(json.dumps(parts).encode()).digest()
