"""The playground: requests a generation with one of the account's keys, and shows the same request as code."""

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse

from app.catalogue.model import Model
from app.console.dependencies import LoggedInSession, form
from app.console.forms import UNSENT, EmptyForm, FormState
from app.console.pages.keys import limits_of_new_keys
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.core.schemas import Text
from app.features.admission import Admission
from app.features.dependencies import services_of
from app.features.generate.schemas import GenerationCreate
from app.features.keys import service as keys
from app.features.keys.dependencies import KeysMax
from app.generations.spec import Caller, Delivered
from app.providers import Size
from app.web.pagination import PAGE_SIZE_MAX
from app.web.query import query_value

page = Page("/playground", template="playground.html", label="Playground")

_SIZES = ("1024x1024", "1536x1024", "1024x1536", "1280x720", "720x1280", "512x512", "256x256")
_FIRST_KEY = "First key"


class GenerationForm(GenerationCreate):
    """A generation to be requested, with the id of the key that requests it and the id of the rendered form."""

    key_id: Text
    form_id: Text

    @property
    def idempotency_key(self) -> str:
        """The same for the same form with the same values: sent twice, it is one generation; changed, it is another."""
        parts = [self.form_id, self.key_id, self.size, self.prompt, self.model, self.quality]
        return sha256(json.dumps(parts).encode()).hexdigest()


async def _render(
    session: ConsoleSession,
    form_state: FormState,
    *,
    generation: Delivered | None = None,
    new_key: keys.CreatedKey | None = None,
) -> HTMLResponse:
    async with session.transaction() as database:
        own_keys = await keys.find_all(
            database, account_id=session.user.account_id, include_revoked=False, after=None, limit=PAGE_SIZE_MAX
        )
    request = session.request
    catalogue = services_of(request).generations.catalogue.catalogue
    asked = form_state.values.get("model") or query_value(request, "model")
    model = catalogue.models.get(asked or catalogue.default)
    drawing = [model] if model else list(catalogue)
    return session.render(
        page.template,
        form=form_state,
        keys=own_keys,
        models=list(catalogue),
        sizes=_sizes_of(drawing),
        qualities=list(dict.fromkeys(quality for each in drawing for quality in each.qualities)),
        selected={
            "key_id": query_value(request, "key_id") or "",
            "model": model.name if model and len(catalogue.models) > 1 else "",
            **form_state.values,
        },
        # The form keeps its id until its generation is delivered: sent again after an error, it is the same request.
        form_id=(generation is None and form_state.values.get("form_id")) or secrets.token_urlsafe(16),
        generation=generation,
        new_key=new_key,
    )


def _sizes_of(models: Sequence[Model]) -> Sequence[str]:
    """The usual sizes that any of these models draws; where that is none, all that they draw."""
    usual = [size for size in _SIZES if any(not each.sizes or Size.of(size) in each.sizes for each in models)]
    return usual or [str(size) for each in models for size in each.sizes]


SentForm = Annotated[GenerationForm, form(GenerationForm, _render)]


async def _admission(request: Request, sent: SentForm, session: LoggedInSession) -> AsyncIterator[Admission]:
    async def find_caller() -> Caller:
        async with session.transaction() as database:
            return await keys.find_own_caller(database, account_id=session.user.account_id, key_id=sent.key_id)

    caller = await find_caller()
    async with Admission(request, caller, idempotency_key=sent.idempotency_key, find_again=find_caller) as admission:
        yield admission


FormAdmission = Annotated[Admission, Depends(_admission, scope="function")]
"""The admission that an API request with the key of the form would get. The key is one of the account's own."""


@page.router.get(page.path)
async def show_playground(session: LoggedInSession) -> HTMLResponse:
    """Show the form for a generation, or to an account without keys, the button that creates the first one."""
    return await _render(session, UNSENT)


@page.router.post(page.path)
async def generate(sent: SentForm, session: LoggedInSession, admission: FormAdmission) -> HTMLResponse:
    """Request the generation, and show its image."""
    generation = await admission.generate(sent.spec, route=page.path)
    return await _render(session, FormState(sent.model_dump()), generation=generation)


@page.router.post(f"{page.path}/first-key")
async def create_first_key(
    _sent: Annotated[EmptyForm, form(EmptyForm, _render, limits=limits_of_new_keys)],
    session: LoggedInSession,
    keys_max: KeysMax,
) -> HTMLResponse:
    """Create a key, show it in this response only, and select it in the form."""
    async with session.transaction() as database:
        key = await keys.create(database, user=session.user, name=_FIRST_KEY, environment="live", keys_max=keys_max)
    return await _render(session, FormState({"key_id": key.id}), new_key=key)
