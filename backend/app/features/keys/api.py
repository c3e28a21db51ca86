"""API keys over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.catalogue.prices import read_amount
from app.core.errors import Invalid, RateLimited
from app.features.auth.dependencies import CurrentUser, WaitingUser
from app.features.auth.service import InvalidToken
from app.features.dependencies import CurrentGenerations, CurrentServices, Session
from app.features.keys import service
from app.features.keys.dependencies import KeyCreator, KeysMax
from app.features.keys.schemas import KeyCapChange, KeyCreate, KeyCreated, KeyListQuery, KeyPublic
from app.web.body import json_body
from app.web.openapi import BODY_PROBLEMS, problems
from app.web.pagination import one_page
from app.web.query import query_of

router = APIRouter(prefix="/v1/keys", tags=["Keys"])


def _now(services: CurrentServices) -> datetime:
    return services.generations.clock.now()


Now = Annotated[datetime, Depends(_now)]
"""The time of the database, as far as this process knows it."""


@router.post(
    "", status_code=201, responses=problems(InvalidToken, RateLimited, service.KeyLimitReached, *BODY_PROBLEMS)
)
async def create_key(
    user: KeyCreator, new: Annotated[KeyCreate, json_body(KeyCreate)], session: Session, keys_max: KeysMax
) -> KeyCreated:
    """Create a key.

    This is the only answer that ever holds the key itself; keep it. An account may have as many unrevoked keys as
    the operator allows: 100 by default.
    """
    return KeyCreated.model_validate(
        await service.create(session, user=user, name=new.name, environment=new.environment, keys_max=keys_max)
    )


@router.get("", responses=problems(InvalidToken, Invalid))
async def list_keys(
    request: Request,
    user: CurrentUser,
    query: Annotated[KeyListQuery, query_of(KeyListQuery)],
    session: Session,
    now: Now,
) -> list[KeyPublic]:
    """List the account's own keys, newest first. The `Link` header leads to the next page."""
    keys = await service.find_all(
        session,
        account_id=user.account_id,
        include_revoked=query.include_revoked,
        after=query.after,
        limit=query.limit + 1,
    )
    return [KeyPublic.of(key, now=now) for key in one_page(request, keys, query=query)]


@router.put("/{key_id}/cap", responses=problems(InvalidToken, service.KeyNotFound, *BODY_PROBLEMS))
async def set_key_cap(
    user: WaitingUser, key_id: str, change: Annotated[KeyCapChange, json_body(KeyCapChange)], session: Session, now: Now
) -> KeyPublic:
    """Set the most that may be spent with a key in each day, month or its whole life, or remove that cap.

    What was spent with it in this period, and what is held for it, counts. The cap may be less than that: then nothing
    more is drawn until the period ends.
    """
    amount = None if change.amount is None else read_amount(change.amount)
    key = await service.set_cap(session, account_id=user.account_id, key_id=key_id, amount=amount, period=change.period)
    return KeyPublic.of(key, now=now)


@router.delete("/{key_id}", status_code=204, responses=problems(InvalidToken, service.KeyNotFound))
async def revoke_key(user: WaitingUser, key_id: str, generations: CurrentGenerations) -> None:
    """Revoke a key. Every request that starts after the 204 is refused, for good.

    Asynchronous generations that wait under it are cancelled with it.
    """
    await service.revoke_for_owner(generations, account_id=user.account_id, key_id=key_id)
