"""What generations offer to routes: a caller within its limit, and the picture that a URL names."""

import math
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Annotated

from fastapi import Depends, Request

from app.core.errors import InvalidRequest
from app.core.settings import Settings
from app.core.web.body import BODY_SECONDS_MAX
from app.features.generate.service import Studio, find_delivered
from app.features.keys.dependencies import recall_caller
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
            math.ceil(BODY_SECONDS_MAX + settings.record_deadline_seconds) + _LEASE_MARGIN_SECONDS,
            settings.generate_limit_mode,
            (f"{process}-{number}" for number in count()),
        )

    @asynccontextmanager
    async def taken(self, caller: Caller) -> AsyncIterator[Taken]:
        """What became of taking all that one generation of the caller needs; it counts as running meanwhile."""
        charges = (
            Charge("key", caller.key_id, caller.limit or self.per_key),
            Charge("account", caller.user_id, caller.account_limit or self.per_account),
        )
        concurrency = caller.concurrency or self.concurrency_per_key
        lease = Lease(caller.key_id, concurrency, self.lease_seconds, next(self._lease_ids))
        try:
            yield await self.limiter.take(charges, group=caller.user_id, lease=lease)
        finally:
            self.limiter.end(lease, group=caller.user_id)


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


CurrentStudio = Annotated[Studio, Depends(_studio)]


@asynccontextmanager
async def admitted_caller(request: Request) -> AsyncIterator[Caller]:
    """A caller with an active key who is within the generate limits, and counts as running one generation meanwhile.
    The key's limit is told in the answer's headers, and the account's where that leaves less.

    Raises InvalidApiKey, RateLimited and ConcurrencyLimited.
    """
    caller = await recall_caller(request)
    limits: GenerateLimits = request.app.state.generate_limits
    async with limits.taken(caller) as taken:
        of_key, of_account = taken.decisions
        tell(request, [of_key, of_account] if of_account.remaining < of_key.remaining else [of_key])
        enforce(request, taken, mode=limits.mode)
        yield caller


def read_idempotency_key(request: Request) -> str | None:
    """The request's `Idempotency-Key`, without its quotes, if it has one. Raises InvalidRequest for a malformed one."""
    sent = request.headers.getlist("idempotency-key")
    if not sent:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(sent[0])
    if match is None or len(sent) > 1:
        raise InvalidRequest("Idempotency-Key must be one of 1 to 255 visible ASCII characters, bare or quoted")
    return match["quoted"] or match["bare"]


async def _delivered(studio: CurrentStudio, generation_id: str) -> Generation:
    return await find_delivered(studio, generation_id=generation_id)


DeliveredGeneration = Annotated[Generation, Depends(_delivered)]
"""The generation that the path names, if its picture may be looked at."""
