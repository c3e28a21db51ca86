"""What keys offer to routes: who is calling."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NoReturn

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.core.db import SessionMaker
from app.core.security import hash_api_key
from app.core.settings import Settings
from app.features.keys import service
from app.features.keys.cache import CallerCache
from app.ratelimit import Charge, Limit, Limiter
from app.ratelimit.headers import enforce
from app.web.client_address import origin_of
from app.web.database import Session
from app.web.headers import header_values

bearer = HTTPBearer(
    scheme_name="API key",
    bearerFormat="nb_live_...",
    description="The `key` that `POST /v1/keys` answers, once.",
    auto_error=False,
)


@dataclass(frozen=True)
class UnknownKeyLimit:
    """How often an address may call with keys that nobody has. A good key is never refused by it."""

    limiter: Limiter
    per_ip: Limit

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "UnknownKeyLimit":
        return cls(limiter, Limit.parse(settings.unknown_key_limit_per_ip))


async def recall_caller(request: Request) -> service.Caller:
    """Whoever sent an API key that was active a moment ago. For the ledger, which asks the key's row again.

    Raises InvalidApiKey, or RateLimited where that was the answer too often.
    """
    key_hash = await _sent_key_hash(request)
    cache: CallerCache = request.app.state.callers
    try:
        caller = cache.get(key_hash)
    except service.InvalidApiKey:
        return await _refuse(request)
    if caller is None:
        sessions: SessionMaker = request.app.state.sessions
        caller = await cache.fetch_once(key_hash, partial(_find_caller, sessions))
    return caller or await _refuse(request)


async def _find_caller(sessions: SessionMaker, key_hash: bytes) -> service.Caller | None:
    async with sessions.begin() as session:
        return await service.find_caller(session, key_hash=key_hash)


async def _caller(
    request: Request, session: Session, _documented: Annotated[object, Depends(bearer)]
) -> service.Caller:
    caller = await service.find_caller(session, key_hash=await _sent_key_hash(request))
    return caller or await _refuse(request)


Caller = Annotated[service.Caller, Depends(_caller)]
"""Whoever sent an API key that the database says is active now."""


async def _sent_key_hash(request: Request) -> bytes:
    scheme, _, raw = "".join(header_values(request, b"authorization")).partition(" ")
    if scheme.lower() != "bearer" or not raw:
        raise service.InvalidApiKey(credential_sent=False)
    return hash_api_key(raw.strip(" ")) or await _refuse(request)


async def _refuse(request: Request) -> NoReturn:
    limit: UnknownKeyLimit = request.app.state.unknown_key_limit
    charge = Charge("unknown-key-ip", origin_of(request).host, limit.per_ip)
    enforce(request, await limit.limiter.take([charge], group="sign-in"))
    raise service.InvalidApiKey


def _keys_max(request: Request) -> int:
    keys_max: int = request.app.state.settings.keys_per_account_max
    return keys_max


KeysMax = Annotated[int, Depends(_keys_max)]
"""How many unrevoked keys an account may have."""
