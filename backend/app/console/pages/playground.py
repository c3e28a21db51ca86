"""The playground: a picture in the name of one of the account's keys, and the same call for elsewhere."""

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.console.drafts import Draft, Nothing, form
from app.console.site import Page
from app.console.visits import Owner, Visitor
from app.core.schemas import Text
from app.features.generate import service
from app.features.generate.dependencies import CurrentStudio, WithinLimits
from app.features.generate.schemas import GenerationCreate, read_size
from app.features.keys import service as keys
from app.features.keys.dependencies import KeysMax
from app.web.pagination import PAGE_SIZE_MAX

router = APIRouter(include_in_schema=False)

ROUTE = "/playground"
_SIZES = ("1024x1024", "1536x1024", "1024x1536", "1280x720", "720x1280", "512x512", "256x256")
_FIRST_KEY = "First key"


class PictureForm(GenerationCreate):
    """A picture to be made: with which key, and from which form."""

    key_id: Text
    form_id: Text

    @property
    def idempotency_key(self) -> str:
        """One for each form and what is written in it: sent twice it is one picture, changed it is another."""
        parts = [self.form_id, self.key_id, self.size, self.prompt]
        return sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Admitted:
    """A picture that may be made."""

    caller: keys.Caller
    sent: PictureForm


async def playground_page(
    visitor: Visitor, draft: Draft, *, made: service.Delivered | None = None, new_key: keys.CreatedKey | None = None
) -> Page:
    async with visitor.transaction() as session:
        own = await keys.find_all(
            session, user_id=visitor.account.id, include_revoked=False, after=None, limit=PAGE_SIZE_MAX
        )
    studio = visitor.request.app.state.studio
    sizes = [size for size in _SIZES if studio.providers["live"].refusal(read_size(size)) is None]
    values = {"key_id": visitor.request.query_params.get("key_id", ""), **draft.values}
    return visitor.page(
        "playground.html",
        draft=draft,
        keys=own,
        sizes=sizes,
        chosen=values,
        # Kept while the picture is not there: whatever went wrong, sending the form again makes one picture.
        form_id=(made is None and draft.values.get("form_id")) or secrets.token_urlsafe(16),
        made=made,
        new_key=new_key,
    )


async def _admitted(
    request: Request, sent: Annotated[PictureForm, form(PictureForm, again=playground_page)], visitor: Owner
) -> AsyncIterator[Admitted]:
    async with visitor.transaction() as session:
        caller = await keys.find_own_caller(session, user_id=visitor.account.id, key_id=sent.key_id)
    async with WithinLimits(request, caller):
        yield Admitted(caller, sent)


AdmittedPicture = Annotated[Admitted, Depends(_admitted, scope="function")]
"""A picture within the limits of the account's own key, as if that key had called."""


@router.get(ROUTE)
async def show_playground(visitor: Owner) -> Page:
    """The form for a picture; before there is a key, the one click that makes it."""
    return await playground_page(visitor, Draft())


@router.post(ROUTE)
async def draw_picture(admitted: AdmittedPicture, visitor: Owner, studio: CurrentStudio) -> Page:
    """Makes the picture and shows it."""
    made = await service.generate(
        studio,
        caller=admitted.caller,
        wish=admitted.sent.wish,
        route=ROUTE,
        idempotency_key=admitted.sent.idempotency_key,
    )
    return await playground_page(visitor, Draft(admitted.sent.model_dump()), made=made)


@router.post(f"{ROUTE}/first-key")
async def create_first_key(
    _sent: Annotated[Nothing, form(Nothing, again=playground_page)], visitor: Owner, keys_max: KeysMax
) -> Page:
    """Makes a key with one click, and goes on with it."""
    async with visitor.transaction() as session:
        key = await keys.create(
            session, user_id=visitor.account.id, name=_FIRST_KEY, environment="live", keys_max=keys_max
        )
    return await playground_page(visitor, Draft({"key_id": key.id}), new_key=key)
