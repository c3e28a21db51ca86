"""The caller of an API key, as a dependency of routes."""

from collections.abc import Sequence
from typing import Annotated, NoReturn

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.core.errors import InvalidRequest
from app.core.security import hash_api_key, looks_like_api_key, looks_like_login_token
from app.features.auth.dependencies import CurrentAccounts, SentToken, WaitingUser, current_user
from app.features.dependencies import CurrentServices, Session, services_of
from app.features.keys import service
from app.features.rate_limits import raise_if_refused, set_rate_limit_headers
from app.generations import spec
from app.generations.errors import InvalidApiKey
from app.models import User
from app.ratelimit import Take
from app.web.client_address import origin_of
from app.web.headers import CREDENTIAL_HEADERS
from app.web.state import RequestState, request_state

_WITHOUT_KEY = "No API key: send it as Authorization: Bearer nb_live_..."
_WITH_LOGIN = "This is a login token; this call needs an API key"

bearer = HTTPBearer(
    scheme_name="API key",
    bearerFormat="nb_live_...",
    description="The `key` that `POST /v1/keys` answers, once. It may come in `api-key` or `x-goog-api-key` instead.",
    auto_error=False,
)


async def cached_caller(request: Request) -> spec.Caller:
    """The caller of an API key that was active at most KNOWN_SECONDS ago. The ledger checks the key's row again.

    Raises InvalidApiKey, or RateLimited where an address was refused so too often.
    """
    key_hash, callers = await _sent_key_hash(request), services_of(request).callers
    try:
        caller = callers.get(key_hash)
    except InvalidApiKey:
        await _refuse_unknown_key(request)
    return caller or await fetch_caller(request, key_hash=key_hash)


async def fetch_caller(request: Request, *, key_hash: bytes | None = None) -> spec.Caller:
    """The same caller as the database has it now, for the cache too."""
    key_hash = key_hash or await _sent_key_hash(request)
    caller = await services_of(request).callers.fetch(key_hash)
    if caller is None:
        await _refuse_unknown_key(request)
    return caller


async def _caller(request: Request, session: Session, _documented: Annotated[object, Depends(bearer)]) -> spec.Caller:
    caller = await service.find_caller(session, key_hash=await _sent_key_hash(request))
    if caller is None:
        await _refuse_unknown_key(request)
    name_caller(request, caller)
    return caller


def name_caller(request: Request, caller: spec.Caller) -> None:
    """Puts the caller's account and key on the request's line in the log."""
    state: RequestState = request.scope["state"]
    state["account"], state["key"] = caller.account_id, caller.key_id


async def _waiting_caller(request: Request, _documented: Annotated[object, Depends(bearer)]) -> spec.Caller:
    caller = await fetch_caller(request)
    name_caller(request, caller)
    return caller


Caller = Annotated[spec.Caller, Depends(_caller)]
"""The caller of an API key that is active in the database now."""
WaitingCaller = Annotated[spec.Caller, Depends(_waiting_caller)]
"""The same for a route that may wait: it holds no connection of the database."""


async def _account_id(
    request: Request,
    session: Session,
    accounts: CurrentAccounts,
    token: SentToken,
    documented: Annotated[object, Depends(bearer)],
) -> str:
    if _is_key_sent(request, token):
        return (await _caller(request, session, documented)).account_id
    return (await current_user(request, session, accounts, token)).account_id


def _is_key_sent(request: Request, token: SentToken) -> bool:
    names = request_state(request.scope)["headers"].keys() & CREDENTIAL_HEADERS.keys()
    return bool(names - {b"authorization"}) or (token is not None and looks_like_api_key(token.credentials))


AccountId = Annotated[str, Depends(_account_id)]
"""The account of a login token, or of an API key that is active in the database now."""


async def _sent_key_hash(request: Request) -> bytes:
    """The hash of the API key in CREDENTIAL_HEADERS. Raises InvalidRequest where two of them differ: of two keys, two
    programs could take different ones.
    """
    state: RequestState = request.scope["state"]
    sent = (*map(state["headers"].get, CREDENTIAL_HEADERS),)
    known = state.get("key_hashes", {})
    if (key_hash := known.get(sent)) is None:
        key_hash = await _hash_of_key(request, sent)
        known.clear()
        known[sent] = key_hash
    return key_hash


async def _hash_of_key(request: Request, sent: Sequence[bytes | None]) -> bytes:
    """The same of the values of CREDENTIAL_HEADERS, in their order."""
    keys = {_key_in(name, each) for name, each in zip(CREDENTIAL_HEADERS, sent, strict=True) if each is not None}
    if len(keys) > 1:
        raise InvalidRequest(f"Send the API key in one header: {' or '.join(CREDENTIAL_HEADERS.values())}")
    raw = "".join(keys)
    if not raw:
        raise InvalidApiKey(_WITHOUT_KEY, credential_sent=False)
    key_hash = hash_api_key(raw)
    if key_hash is None:
        await _refuse_unknown_key(request, _WITH_LOGIN if looks_like_login_token(raw) else None)
    return key_hash


def _key_in(name: bytes, value: bytes) -> str:
    """The key in one of CREDENTIAL_HEADERS; empty where it holds another credential."""
    raw = value.decode("latin-1")
    if name == b"authorization":
        scheme, _, raw = raw.partition(" ")
        raw = raw if scheme.lower() == "bearer" else ""
    return raw.strip(" ")


async def _refuse_unknown_key(request: Request, detail: str | None = None) -> NoReturn:
    """Raises InvalidApiKey, which counts against the client's address, or RateLimited where it counted too often."""
    services = services_of(request)
    take = Take("unknown-key-ip", origin_of(request).host, services.policies.unknown_key_per_ip)
    raise_if_refused(request, await services.limiter.take([take], group="sign-in"))
    raise InvalidApiKey(detail)


def _keys_max(services: CurrentServices) -> int:
    return services.settings.keys_per_account_max


async def limit_created_keys(request: Request, *, account_id: str) -> None:
    """Raises RateLimited when the account has created too many keys."""
    services = services_of(request)
    take = Take("create-key", account_id, services.policies.create_key_per_account)
    taken = await services.limiter.take([take], group=account_id)
    set_rate_limit_headers(request, taken.decisions)
    raise_if_refused(request, taken)


async def _key_creator(request: Request, user: WaitingUser) -> User:
    await limit_created_keys(request, account_id=user.account_id)
    return user


KeyCreator = Annotated[User, Depends(_key_creator)]
"""WaitingUser, whose account may create another key now. Raises RateLimited."""

KeysMax = Annotated[int, Depends(_keys_max)]
"""How many unrevoked keys an account may have."""
