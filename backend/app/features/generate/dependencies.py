"""What generations offer to routes: a caller within its limit, and the picture that a URL names."""

import math
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Annotated

from fastapi import Depends, Request

from app.core.errors import Invalid, InvalidRequest
from app.core.settings import Settings
from app.core.web.body import BODY_SECONDS_MAX
from app.core.web.middleware import add_answer_headers, sent_headers
from app.features.generate.pictures import find_delivered
from app.features.generate.service import Delivered
from app.features.generate.studio import Studio
from app.features.keys.dependencies import cached_caller
from app.features.keys.service import Caller
from app.models import Generation
from app.ratelimit import Charge, Lease, Limit, Limiter, Taken
from app.ratelimit.headers import Mode, enforce, tell

_IDEMPOTENCY_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,255})"|(?P<bare>[!#-~]{1,255})', re.ASCII)
_LEASE_MARGIN_SECONDS = 5

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes the call safe to repeat for a day: 1 to 255 visible ASCII characters, bare or quoted.",
    "schema": {"type": "string", "pattern": '^("[!#-~]{1,255}"|[!#-~]{1,255})$'},
}
"""The header as OpenAPI describes it."""


@dataclass(frozen=True)
class GenerateLimits:
    """How often a key and an account may generate, how many at a time, and whether that is only told or also held.

    What a key or an account was given of its own goes before what stands here.
    """

    limiter: Limiter
    per_key: Limit
    per_account: Limit
    concurrency_per_key: int
    lease_seconds: int
    mode: Mode
    _lease_ids: Iterator[str]

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "GenerateLimits":
        process = secrets.token_hex(6)
        return cls(
            limiter,
            Limit.parse(settings.generate_limit_per_key),
            Limit.parse(settings.generate_limit_per_account),
            settings.generate_concurrency_per_key,
            # Longer than any generation lives, from its body to its record.
            math.ceil(BODY_SECONDS_MAX + settings.generation_deadline_seconds + 2 * settings.record_deadline_seconds)
            + _LEASE_MARGIN_SECONDS,
            settings.generate_limit_mode,
            (f"{process}-{number}" for number in count()),
        )

    def charges(self, caller: Caller, *, units: int = 1) -> Sequence[Charge]:
        """What pictures of this caller cost: so many units of its key's limit and of its account's."""
        return (
            Charge("key", caller.key_id, caller.limit or self.per_key, units),
            Charge("account", caller.user_id, caller.account_limit or self.per_account, units),
        )

    def check_possible(self, caller: Caller, *, units: int) -> None:
        """Raises Invalid for more pictures at once than a limit ever lets through: no wait would help."""
        most = min(charge.limit.count for charge in self.charges(caller))
        if units > most and self.mode == "enforce":
            raise Invalid([{"pointer": "#/n", "detail": f"The limits let {most} through at once"}])

    def lease(self, caller: Caller) -> Lease:
        """A new place among the caller's running generations, still to be taken."""
        places = caller.concurrency or self.concurrency_per_key
        return Lease(caller.key_id, places, self.lease_seconds, next(self._lease_ids))


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


CurrentStudio = Annotated[Studio, Depends(_studio)]


class WithinLimits:
    """One unit of the caller's limits is taken, and one generation counts as running meanwhile. The key's limit is told
    in the answer's headers, and the account's where that leaves less.

    Raises RateLimited and ConcurrencyLimited.
    """

    def __init__(self, request: Request, caller: Caller) -> None:
        self._request, self._caller = request, caller
        self._limits: GenerateLimits = request.app.state.generate_limits
        self._lease = self._limits.lease(caller)

    async def __aenter__(self) -> None:
        limits, caller = self._limits, self._caller
        try:
            taken = await limits.limiter.take(limits.charges(caller), group=caller.user_id, lease=self._lease)
            _tell(self._request, taken)
            enforce(self._request, taken, mode=limits.mode)
        except BaseException:
            self._end()
            raise

    async def __aexit__(self, *_exception: object) -> None:
        self._end()

    def _end(self) -> None:
        self._limits.limiter.end(self._lease, group=self._caller.user_id)


def _tell(request: Request, taken: Taken) -> None:
    of_key, of_account = taken.decisions
    tell(request, [of_key, of_account] if of_account.remaining < of_key.remaining else [of_key])


async def _admitted_caller(request: Request) -> AsyncIterator[Caller]:
    caller = await cached_caller(request)
    async with WithinLimits(request, caller):
        yield caller


AdmittedCaller = Annotated[Caller, Depends(_admitted_caller, scope="function")]
"""Whoever sent an active key, within the generate limits. Raises InvalidApiKey, and what `WithinLimits` raises."""


async def take_further(request: Request, caller: Caller, *, units: int) -> None:
    """Takes what more pictures of an admitted request need. Raises Invalid for more than the limits ever let through at
    once, and RateLimited where they do not now; then the request's first unit is given back.
    """
    if units == 0:
        return
    limits: GenerateLimits = request.app.state.generate_limits
    limits.check_possible(caller, units=units + 1)
    taken = await limits.limiter.take(limits.charges(caller, units=units), group=caller.user_id)
    if not taken.allowed and limits.mode == "enforce":
        await limits.limiter.give_back(limits.charges(caller), group=caller.user_id)
    _tell(request, taken)
    enforce(request, taken, mode=limits.mode)


def read_idempotency_key(request: Request) -> str | None:
    """The request's `Idempotency-Key`, without its quotes, if it has one. Raises InvalidRequest for a malformed one."""
    sent = sent_headers(request, b"idempotency-key")
    if not sent:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(sent[0])
    if match is None or len(sent) > 1:
        raise InvalidRequest("Idempotency-Key must be one of 1 to 255 visible ASCII characters, bare or quoted")
    return match["quoted"] or match["bare"]


def tell_replay(request: Request, delivered: Delivered) -> None:
    """Marks the answer as one that was given before, if it is."""
    if delivered.replayed:
        add_answer_headers(request, {b"idempotent-replayed": b"true"})


IdempotencyKey = Annotated[str | None, Depends(read_idempotency_key)]


async def _delivered(studio: CurrentStudio, generation_id: str, extension: str) -> Generation:
    return await find_delivered(studio, generation_id=generation_id, picture_format=extension)


DeliveredGeneration = Annotated[Generation, Depends(_delivered)]
"""The generation that the path names, if its picture may be looked at."""
