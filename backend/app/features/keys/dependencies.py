"""What keys offer to routes: who is calling."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.db import Sessions
from app.features.keys import service

_bearer = HTTPBearer(
    scheme_name="API key",
    bearerFormat="nb_live_...",
    description="The `key` that `POST /v1/keys` answers, once.",
    auto_error=False,
)


async def _caller(
    sessions: Sessions, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> service.Caller:
    if sent is None:
        raise service.InvalidApiKey(credential_sent=False)
    async with sessions.begin() as session:
        return await service.authenticate(session, raw=sent.credentials)


Caller = Annotated[service.Caller, Depends(_caller)]
"""Whoever sent an API key that is active."""


def _keys_max(request: Request) -> int:
    keys_max: int = request.app.state.settings.keys_per_account_max
    return keys_max


KeysMax = Annotated[int, Depends(_keys_max)]
"""How many unrevoked keys an account may have."""
