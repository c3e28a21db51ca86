"""What keys offer to routes: who is calling."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.core.db import Session
from app.core.security import hash_api_key
from app.features.keys import service
from app.features.keys.cache import CallerCache

bearer = HTTPBearer(
    scheme_name="API key",
    bearerFormat="nb_live_...",
    description="The `key` that `POST /v1/keys` answers, once.",
    auto_error=False,
)


async def recall_caller(request: Request) -> service.Caller:
    """Whoever sent an API key that was active a moment ago. For the ledger, which asks the key's row again.

    Raises InvalidApiKey.
    """
    key_hash = _sent_key_hash(request)
    cache: CallerCache = request.app.state.callers
    caller = cache.get(key_hash)
    if caller is None:
        async with request.app.state.sessions.begin() as session:
            caller = await service.find_caller(session, key_hash=key_hash)
        cache.put(key_hash, caller)
    if caller is None:
        raise service.InvalidApiKey
    return caller


async def _caller(
    request: Request, session: Session, _documented: Annotated[object, Depends(bearer)]
) -> service.Caller:
    caller = await service.find_caller(session, key_hash=_sent_key_hash(request))
    if caller is None:
        raise service.InvalidApiKey
    return caller


Caller = Annotated[service.Caller, Depends(_caller)]
"""Whoever sent an API key that the database says is active now."""


def _sent_key_hash(request: Request) -> bytes:
    scheme, _, raw = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not raw:
        raise service.InvalidApiKey(credential_sent=False)
    key_hash = hash_api_key(raw.strip(" "))
    if key_hash is None:
        raise service.InvalidApiKey
    return key_hash


def _keys_max(request: Request) -> int:
    keys_max: int = request.app.state.settings.keys_per_account_max
    return keys_max


KeysMax = Annotated[int, Depends(_keys_max)]
"""How many unrevoked keys an account may have."""
