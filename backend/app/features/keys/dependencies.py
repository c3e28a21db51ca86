"""What keys offer to routes: who is calling."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NoReturn

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.core.db import Session, SessionMaker
from app.core.security import hash_api_key
from app.core.settings import Settings
from app.core.web.address import origin_of
from app.core.web.middleware import sent_headers
from app.core.web.rate_limit_headers import raise_if_refused
from app.features.keys import service
from app.features.keys.cache import CallerCache
from app.ratelimit import Limit, Limiter, Take

bearer = HTTPBearer(
    scheme_name="API key",
    bearerFormat="nb_live_...",
    description="The `key` that `POST /v1/keys` answers, once.",
    auto_error=False,
)


@dataclass(frozen=True)
class UnknownKeyLimit:
    """How often an address may call with keys that are not active. It never refuses an active key."""

    limiter: Limiter
    per_ip: Limit

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "UnknownKeyLimit":
        return cls(limiter, Limit.parse(settings.unknown_key_limit_per_ip))


async def recall_caller(request: Request) -> service.Caller:
    """The caller whose API key was active a moment ago. For the ledger, which reads the key's row again.

    Raises InvalidApiKey, or RateLimited if the address got that answer too often.
    """
    key_hash = await _sent_key_hash(request)
    cache: CallerCache = request.app.state.callers
    try:
        caller = cache.get(key_hash)
    except service.InvalidApiKey:
        await _refuse_unknown_key(request)
    if caller is None:
        sessions: SessionMaker = request.app.state.sessions
        caller = await cache.learn(key_hash, partial(_find_caller, sessions))
    if caller is None:
        await _refuse_unknown_key(request)
    return caller


async def _find_caller(sessions: SessionMaker, key_hash: bytes) -> service.Caller | None:
    async with sessions.begin() as session:
        return await service.find_caller(session, key_hash=key_hash)


async def _caller(
    request: Request, session: Session, _documented: Annotated[object, Depends(bearer)]
) -> service.Caller:
    caller = await service.find_caller(session, key_hash=await _sent_key_hash(request))
    if caller is None:
        await _refuse_unknown_key(request)
    return caller


Caller = Annotated[service.Caller, Depends(_caller)]
"""The caller whose API key is active according to the database."""


async def _sent_key_hash(request: Request) -> bytes:
    scheme, _, raw = "".join(sent_headers(request, b"authorization")).partition(" ")
    if scheme.lower() != "bearer" or not raw:
        raise service.InvalidApiKey(credential_sent=False)
    key_hash = hash_api_key(raw.strip(" "))
    if key_hash is None:
        await _refuse_unknown_key(request)
    return key_hash


async def _refuse_unknown_key(request: Request) -> NoReturn:
    """Raises InvalidApiKey, or RateLimited if this address has already got that answer too often."""
    limit: UnknownKeyLimit = request.app.state.unknown_key_limit
    take = Take("unknown-key-ip", origin_of(request).host, limit.per_ip)
    raise_if_refused(request, await limit.limiter.take([take], group="sign-in"))
    raise service.InvalidApiKey


def _keys_max(request: Request) -> int:
    keys_max: int = request.app.state.settings.keys_per_account_max
    return keys_max


KeysMax = Annotated[int, Depends(_keys_max)]
"""How many unrevoked keys an account may have."""
