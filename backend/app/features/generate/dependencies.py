"""What generations offer to routes: a caller within its limit, and the picture that a URL names."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.core.errors import InvalidRequest
from app.core.settings import Settings
from app.features.generate.service import Studio, find_delivered
from app.features.keys.dependencies import recall_caller
from app.features.keys.service import Caller
from app.models import Generation
from app.ratelimit import Charge, Limit, Limiter
from app.ratelimit.headers import enforce, tell

_IDEMPOTENCY_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,255})"|(?P<bare>[!#-~]{1,255})', re.ASCII)


@dataclass(frozen=True)
class GenerateLimit:
    """How often a key may generate, and whether that is only told or also held."""

    limiter: Limiter
    per_key: Limit
    enforced: bool

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "GenerateLimit":
        enforced = settings.generate_limit_mode == "enforce"
        return cls(limiter, Limit.parse(settings.generate_limit_per_key), enforced)


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


CurrentStudio = Annotated[Studio, Depends(_studio)]


async def limited_caller(request: Request) -> Caller:
    """A caller with an active key who is within the generate limit; the limit is told in the answer's headers.

    Raises InvalidApiKey and RateLimited.
    """
    caller = await recall_caller(request)
    limit: GenerateLimit = request.app.state.generate_limit
    decisions = await limit.limiter.take([Charge("key", caller.key_id, limit.per_key)])
    tell(request, decisions)
    if limit.enforced:
        enforce(decisions)
    return caller


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
