"""API keys: created and shown once, and listed."""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi.responses import HTMLResponse
from pydantic import Field

from app.billing.caps import KeyCap, cap_of
from app.console.dependencies import LoggedInSession, form
from app.console.forms import UNSENT, FormState
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.core.schemas import QueryInt, Text
from app.features.dependencies import Session, services_of
from app.features.keys import service
from app.features.keys.dependencies import KeysMax, limit_created_keys
from app.features.keys.schemas import KeyCreate, KeyListQuery
from app.models import ApiKey
from app.web.pagination import PAGE_SIZE_MAX, split_page
from app.web.query import query_of

page = Page("/keys", template="keys.html", label="API keys")


class KeyForm(KeyCreate):
    """A key to be made, with the id of the rendered form: sent twice, it makes one key."""

    form_id: Text


class KeyPageQuery(KeyListQuery):
    """Which of the keys. By default a page of the console has more of them than a page of the API."""

    limit: QueryInt = Field(default=PAGE_SIZE_MAX, ge=1, le=PAGE_SIZE_MAX)


async def _render(session: ConsoleSession, form_state: FormState, query: KeyPageQuery | None = None) -> HTMLResponse:
    query = query or KeyPageQuery()
    async with session.transaction() as database:
        found = await service.find_all(
            database,
            account_id=session.user.account_id,
            include_revoked=query.include_revoked,
            after=query.after,
            limit=query.limit + 1,
        )
    keys, older = split_page(found, query=query)
    caps = caps_of(session, keys)
    context = {"keys": keys, "caps": caps, "older": older, "query": query}
    return session.render(page.template, form=form_state, form_id=secrets.token_urlsafe(16), **context)


def caps_of(session: ConsoleSession, keys: Sequence[ApiKey]) -> Mapping[str, KeyCap | None]:
    """The caps of these keys, by their ids, with what was spent in the current period."""
    now = services_of(session.request).generations.clock.now()
    return {key.id: cap_of(key, now=now) for key in keys}


@asynccontextmanager
async def limits_of_new_keys(session: ConsoleSession) -> AsyncIterator[None]:
    """The limits of a form that creates a key. Raises RateLimited when the account has created too many."""
    if session.is_logged_in:  # the form of a session that has ended is read, so that its page can return the text
        await limit_created_keys(session.request, account_id=session.user.account_id)
    yield


NewKey = Annotated[KeyForm, form(KeyForm, _render, limits=limits_of_new_keys)]
"""A key that the account may create now."""


@page.router.get(page.path)
async def show_keys(session: LoggedInSession, query: Annotated[KeyPageQuery, query_of(KeyPageQuery)]) -> HTMLResponse:
    """Show the account's keys, newest first, and the form that creates one."""
    return await _render(session, UNSENT, query)


@page.router.post(page.path)
async def create_key(new: NewKey, session: LoggedInSession, database: Session, keys_max: KeysMax) -> HTMLResponse:
    """Create a key, and show it in this response only."""
    key = await service.create(database, user=session.user, keys_max=keys_max, **new.model_dump())
    return session.render("key_created.html", key=key)
