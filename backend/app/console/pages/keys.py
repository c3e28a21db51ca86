"""API keys: made and shown once, listed, revoked after a question."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from app.console.drafts import Draft, Nothing, form
from app.console.site import Page
from app.console.visits import Owner, Visitor, led_to
from app.core.schemas import QueryInt
from app.features.keys import service
from app.features.keys.dependencies import KeysMax
from app.features.keys.schemas import KeyCreate, KeyListQuery
from app.web.database import Session
from app.web.pagination import PAGE_SIZE_MAX, split_page

router = APIRouter(include_in_schema=False)


class KeyPageQuery(KeyListQuery):
    """Which of the keys; a page of the console has more of them than one of the API."""

    limit: QueryInt = Field(default=PAGE_SIZE_MAX, ge=1, le=PAGE_SIZE_MAX)


async def keys_page(visitor: Visitor, draft: Draft, query: KeyPageQuery | None = None) -> Page:
    query = query or KeyPageQuery()
    async with visitor.transaction() as session:
        found = await service.find_all(
            session,
            user_id=visitor.account.id,
            include_revoked=query.include_revoked,
            after=query.after,
            limit=query.limit + 1,
        )
    keys, further = split_page(found, query=query)
    return visitor.page("keys.html", draft=draft, keys=keys, further=further, query=query)


async def revoke_page(visitor: Visitor, draft: Draft) -> Page:
    async with visitor.transaction() as session:
        key = await service.find_one(session, user_id=visitor.account.id, key_id=visitor.request.path_params["key_id"])
    return visitor.page("revoke.html", draft=draft, key=key)


@router.get("/keys")
async def show_keys(visitor: Owner, query: Annotated[KeyPageQuery, Query()]) -> Page:
    """The account's keys, newest first, and the form for another."""
    return await keys_page(visitor, Draft(), query)


@router.post("/keys")
async def create_key(
    new: Annotated[KeyCreate, form(KeyCreate, again=keys_page)], visitor: Owner, session: Session, keys_max: KeysMax
) -> Page:
    """Makes a key and shows it, this once."""
    key = await service.create(
        session, user_id=visitor.account.id, name=new.name, environment=new.environment, keys_max=keys_max
    )
    return visitor.page("key_created.html", key=key)


@router.get("/keys/{key_id}/revoke")
async def ask_about_revoking(visitor: Owner) -> Page:
    """Asks whether the key shall really stop to work."""
    return await revoke_page(visitor, Draft())


@router.post("/keys/{key_id}/revoke")
async def revoke_key(
    key_id: str, _sent: Annotated[Nothing, form(Nothing, again=revoke_page)], visitor: Owner, session: Session
) -> Response:
    """Revokes the key. What starts after this is refused."""
    await service.revoke(session, user_id=visitor.account.id, key_id=key_id)
    return led_to("/keys")
