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
from app.core.limit_settings import LimitMode
from app.core.settings import Settings
from app.core.web.body import BODY_SECONDS_MAX
from app.core.web.middleware import add_answer_headers, sent_headers
from app.core.web.rate_limit_headers import raise_if_refused, set_rate_limit_headers
from app.features.generate.pictures import find_delivered
from app.features.generate.service import Delivered
from app.features.generate.studio import Studio
from app.features.keys.dependencies import recall_caller
from app.features.keys.service import Caller
from app.models import Generation
from app.ratelimit import Limit, Limiter, Slot, Take, TakeResult

_IDEMPOTENCY_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,255})"|(?P<bare>[!#-~]{1,255})', re.ASCII)
_SLOT_MARGIN_SECONDS = 5

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
    """How often a key and an account may generate, how many at a time, and whether that is enforced or only observed.

    A limit that was set for a key or an account replaces the one here.
    """

    limiter: Limiter
    per_key: Limit
    per_account: Limit
    concurrency_per_key: int
    slot_seconds: int
    mode: LimitMode
    _slot_ids: Iterator[str]

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "GenerateLimits":
        process = secrets.token_hex(6)
        return cls(
            limiter,
            Limit.parse(settings.generate_limit_per_key),
            Limit.parse(settings.generate_limit_per_account),
            settings.generate_concurrency_per_key,
            # Longer than any generation takes, from reading its body to recording it.
            math.ceil(BODY_SECONDS_MAX + settings.generation_deadline_seconds + 2 * settings.record_deadline_seconds)
            + _SLOT_MARGIN_SECONDS,
            settings.generate_limit_mode,
            (f"{process}-{number}" for number in count()),
        )

    def takes(self, caller: Caller, *, units: int = 1) -> Sequence[Take]:
        """What so many images take: as many units from the limit of the caller's key and from that of its account."""
        return (
            Take("key", caller.key_id, caller.limit or self.per_key, units),
            Take("account", caller.user_id, caller.account_limit or self.per_account, units),
        )

    def check_possible(self, caller: Caller, *, units: int) -> None:
        """Raises Invalid for more images at once than the caller's limits ever allow: waiting would not help."""
        most = min(take.limit.count for take in self.takes(caller))
        if units > most and self.mode == "enforce":
            raise Invalid([{"pointer": "#/n", "detail": f"The limits let {most} through at once"}])

    def new_slot(self, caller: Caller) -> Slot:
        """A slot for one running generation of the caller's key, not yet taken."""
        slots = caller.concurrency or self.concurrency_per_key
        return Slot(caller.key_id, slots, self.slot_seconds, next(self._slot_ids))


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


CurrentStudio = Annotated[Studio, Depends(_studio)]


class WithinLimits:
    """Takes one unit from each of the caller's limits, and holds a slot for a running generation inside the block.

    The answer's headers show the key's limit, and the account's as well if fewer of its units remain.
    Raises RateLimited and ConcurrencyLimited.
    """

    def __init__(self, request: Request, caller: Caller) -> None:
        self._request, self._caller = request, caller
        self._limits: GenerateLimits = request.app.state.generate_limits
        self._slot = self._limits.new_slot(caller)

    async def __aenter__(self) -> None:
        limits, caller = self._limits, self._caller
        try:
            result = await limits.limiter.take(limits.takes(caller), group=caller.user_id, slot=self._slot)
            _set_headers(self._request, result)
            raise_if_refused(self._request, result, mode=limits.mode)
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *_exception: object) -> None:
        self._release()

    def _release(self) -> None:
        self._limits.limiter.release(self._slot, group=self._caller.user_id)


def _set_headers(request: Request, result: TakeResult) -> None:
    of_key, of_account = result.decisions
    shown = [of_key, of_account] if of_account.remaining < of_key.remaining else [of_key]
    set_rate_limit_headers(request, shown)


async def _admitted_caller(request: Request) -> AsyncIterator[Caller]:
    caller = await recall_caller(request)
    async with WithinLimits(request, caller):
        yield caller


AdmittedCaller = Annotated[Caller, Depends(_admitted_caller, scope="function")]
"""The caller whose active key came with the request, within the generate limits.

Raises InvalidApiKey, RateLimited and ConcurrencyLimited.
"""


async def take_further(request: Request, caller: Caller, *, units: int) -> None:
    """Takes the units of a request's further images, whose first unit is taken already.

    Raises RateLimited, after giving the first unit back, and Invalid for more images than the limits ever allow.
    """
    if units == 0:
        return
    limits: GenerateLimits = request.app.state.generate_limits
    limits.check_possible(caller, units=units + 1)
    result = await limits.limiter.take(limits.takes(caller, units=units), group=caller.user_id)
    if not result.allowed and limits.mode == "enforce":
        await limits.limiter.give_back(limits.takes(caller), group=caller.user_id)
    _set_headers(request, result)
    raise_if_refused(request, result, mode=limits.mode)


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
