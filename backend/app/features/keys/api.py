"""API keys over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Request

from app.core.errors import Invalid, RateLimited
from app.features.auth.dependencies import CurrentUser
from app.features.auth.service import InvalidToken
from app.features.dependencies import CurrentGenerations, Session
from app.features.keys import service
from app.features.keys.dependencies import KeyCreator, KeysMax
from app.features.keys.schemas import KeyCreate, KeyCreated, KeyListQuery, KeyPublic
from app.web.body import json_body
from app.web.openapi import BODY_PROBLEMS, problems
from app.web.pagination import one_page
from app.web.query import query_of

router = APIRouter(prefix="/v1/keys", tags=["Keys"])


@router.post(
    "", status_code=201, responses=problems(InvalidToken, RateLimited, service.KeyLimitReached, *BODY_PROBLEMS)
)
async def create_key(
    user: KeyCreator, new: Annotated[KeyCreate, json_body(KeyCreate)], session: Session, keys_max: KeysMax
) -> KeyCreated:
    """Create a key.

    This is the only answer that ever holds the key itself; keep it. An account can have 100 unrevoked keys.
    """
    return KeyCreated.model_validate(
        await service.create(session, user=user, name=new.name, environment=new.environment, keys_max=keys_max)
    )


@router.get("", responses=problems(InvalidToken, Invalid))
async def list_keys(
    request: Request, user: CurrentUser, query: Annotated[KeyListQuery, query_of(KeyListQuery)], session: Session
) -> list[KeyPublic]:
    """List the account's own keys, newest first. The `Link` header leads to the next page."""
    keys = await service.find_all(
        session,
        account_id=user.account_id,
        include_revoked=query.include_revoked,
        after=query.after,
        limit=query.limit + 1,
    )
    return [KeyPublic.model_validate(key) for key in one_page(request, keys, query=query)]


@router.delete("/{key_id}", status_code=204, responses=problems(InvalidToken, service.KeyNotFound))
async def revoke_key(user: CurrentUser, key_id: str, generations: CurrentGenerations) -> None:
    """Revoke a key. Every request that starts after the 204 is refused, for good.

    Asynchronous generations that wait under it are cancelled with it.
    """
    await service.revoke_for_owner(generations, account_id=user.account_id, key_id=key_id)
