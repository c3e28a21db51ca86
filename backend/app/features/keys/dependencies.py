"""The caller of a request, by its API key, as a dependency of routes."""

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
from app.features.keys import service
from app.features.keys.cache import CallerCache
from app.ratelimit import Charge, Limit, Limiter
from app.ratelimit.headers import enforce

bearer = HTTPBearer(
    scheme_name="API key",
    bearerFormat="nb_live_...",
    description="The `key` that `POST /v1/keys` answers, once.",
    auto_error=False,
)


@dataclass(frozen=True)
class UnknownKeyLimit:
    """How often an address may call with keys that do not exist. It never refuses an active key."""

    limiter: Limiter
    per_ip: Limit

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "UnknownKeyLimit":
        return cls(limiter, Limit.parse(settings.unknown_key_limit_per_ip))


async def cached_caller(request: Request) -> service.Caller:
    """The caller of an API key that was active at most KNOWN_SECONDS ago. The ledger checks the key's row again.

    Raises InvalidApiKey, or RateLimited where an address was refused so too often.
    """
    key_hash = await _sent_key_hash(request)
    cache: CallerCache = request.app.state.callers
    try:
        caller = cache.get(key_hash)
    except service.InvalidApiKey:
        await _refuse(request)
    if caller is None:
        sessions: SessionMaker = request.app.state.sessions
        caller = await cache.fetch_once(key_hash, partial(_find_caller, sessions))
    if caller is None:
        await _refuse(request)
    return caller


async def _find_caller(sessions: SessionMaker, key_hash: bytes) -> service.Caller | None:
    async with sessions.begin() as session:
        return await service.find_caller(session, key_hash=key_hash)


async def _caller(
    request: Request, session: Session, _documented: Annotated[object, Depends(bearer)]
) -> service.Caller:
    caller = await service.find_caller(session, key_hash=await _sent_key_hash(request))
    if caller is None:
        await _refuse(request)
    return caller


Caller = Annotated[service.Caller, Depends(_caller)]
"""The caller of an API key that is active in the database now."""


async def _sent_key_hash(request: Request) -> bytes:
    scheme, _, raw = "".join(sent_headers(request, b"authorization")).partition(" ")
    if scheme.lower() != "bearer" or not raw:
        raise service.InvalidApiKey(credential_sent=False)
    key_hash = hash_api_key(raw.strip(" "))
    if key_hash is None:
        await _refuse(request)
    return key_hash


async def _refuse(request: Request) -> NoReturn:
    """Raises InvalidApiKey, which counts against the client's address, or RateLimited where it counted too often."""
    limit: UnknownKeyLimit = request.app.state.unknown_key_limit
    charge = Charge("unknown-key-ip", origin_of(request).host, limit.per_ip)
    enforce(request, await limit.limiter.take([charge], group="sign-in"))
    raise service.InvalidApiKey


def _keys_max(request: Request) -> int:
    keys_max: int = request.app.state.settings.keys_per_account_max
    return keys_max


KeysMax = Annotated[int, Depends(_keys_max)]
"""How many unrevoked keys an account may have."""
