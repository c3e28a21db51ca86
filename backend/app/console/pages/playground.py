"""The playground: requests a generation with one of the account's keys, and shows the same request as code."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Request, Response, params
from fastapi.responses import HTMLResponse
from pydantic import AfterValidator, ConfigDict, ValidationInfo

from app.billing.subscriptions import find_models
from app.catalogue.model import Model
from app.console.dependencies import LoggedInSession, form
from app.console.forms import UNSENT, FormState
from app.console.image_inputs import IMAGES, read_form_with_images, takes_of
from app.console.notices import find_notices
from app.console.pages.keys import limits_of_new_keys
from app.console.rendering import Page
from app.console.session import ConsoleSession, redirect
from app.console.snippets import SnippetImage
from app.core.blobs import Blob
from app.core.schemas import Body, Text
from app.core.security import is_id
from app.features.admission import Admission
from app.features.dependencies import generations_with_urls_of, services_of
from app.features.generate.schemas import ModelName, Prompt, Quality, SizeText
from app.features.keys import service as keys
from app.features.keys.dependencies import KeysMax
from app.features.terms import Preference
from app.generations import records
from app.generations.errors import GenerationNotFound
from app.generations.jobs import state
from app.generations.jobs.job import JobTerms
from app.generations.jobs.state import GenerationState
from app.generations.records import GenerationRecord
from app.generations.spec import Caller, GenerationSpec, SentImage
from app.models import ApiKey
from app.providers import Size
from app.web.pagination import PAGE_SIZE_MAX
from app.web.query import query_value

page = Page("/playground", template="playground.html", label="Playground")

_SIZES = ("1024x1024", "1536x1024", "1024x1536", "1280x720", "720x1280", "512x512", "256x256")
_FIRST_KEY = "First key"


def _beside_images(mask: Blob, info: ValidationInfo) -> Blob:
    if not info.data.get(IMAGES):
        raise ValueError("a mask needs an image")
    return mask


class FirstKeyForm(Body):
    """A button that creates a key, with the id of the rendered form: pressed twice, it makes one key."""

    form_id: Text


class GenerationForm(Body):
    """A generation to be requested, with the id of the key that requests it and the id of the rendered form."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    prompt: Prompt
    size: SizeText
    model: ModelName | None = None
    quality: Quality = "auto"
    images: Sequence[Blob | Text] = ()
    mask: Annotated[Blob, AfterValidator(_beside_images)] | None = None
    key_id: Text
    form_id: Text

    @property
    def spec(self) -> GenerationSpec:
        """The request, as any dialect makes it."""
        return GenerationSpec(
            self.prompt, self.size, model=self.model, quality=self.quality, images=self.images, mask=self.mask
        )

    @property
    def idempotency_key(self) -> str:
        """The same for the same form with the same values: sent twice, it is one generation; changed, it is another."""
        files = [each if isinstance(each, str) else each.sha256.hex() for each in self.images]
        mask = self.mask and self.mask.sha256.hex()
        parts = [self.form_id, self.key_id, self.size, self.prompt, self.model, self.quality, files, mask]
        return sha256(json.dumps(parts).encode()).hexdigest()


async def render_playground(
    session: ConsoleSession,
    form_state: FormState,
    *,
    generation_id: str | None = None,
    new_key: keys.CreatedKey | None = None,
) -> HTMLResponse:
    """The page, with the generation with this id, by default the one that the address names, and how far it is. A form
    that was not sent asks for the same again.
    """
    request, account_id = session.request, session.user.account_id
    generations = generations_with_urls_of(request)
    edited = query_value(request, "edit")
    named = generation_id or request.path_params.get("generation_id") or query_value(request, "generation")
    shown = await state.find(generations, account_id=account_id, generation_id=named) if named else None
    if shown is not None and not form_state.values:
        form_state = FormState(_values_of(shown), form_state.error)
    async with session.transaction() as database:
        await session.load_balance(database)
        own_keys = await keys.find_all(database, account_id=account_id, limit=PAGE_SIZE_MAX)
        sent: Sequence[SentImage] = form_state.values.get("images") or ([edited] if edited else [])
        ids = [each for each in sent if isinstance(each, str)]
        models = await find_models(database, generations.catalogue.catalogue, account_id=account_id)
        inputs = await records.find_some(generations, database, account_id=account_id, ids=ids)
    if edited and edited not in inputs:
        raise GenerationNotFound
    return session.render(
        page.template,
        form=form_state,
        notices=await find_notices(session),
        keys=own_keys,
        # The form keeps its id until its generation is delivered: sent again after an error, it is the same request.
        form_id=(generation_id is None and form_state.values.get("form_id")) or secrets.token_urlsafe(16),
        shown=shown,
        now=generations.clock(),
        new_key=new_key,
        inputs=[inputs[each] for each in ids if each in inputs],
        snippet_images=_snippet_images(sent, inputs),
        snippet_mask=SnippetImage("mask.png") if form_state.values.get("mask") else None,
        **_choices(request, form_state, own_keys, models, edited=inputs.get(edited) if edited else None),
    )


def _values_of(recorded: GenerationState) -> Mapping[str, Any]:
    """The form that requests the same, as far as that is recorded: files are not."""
    images = [each for each in recorded.inputs if each is not None and is_id("gen", each)]
    size = "auto" if images and recorded.size not in _SIZES else recorded.size
    fields = {name: getattr(recorded, name) for name in ("prompt", "model", "quality", "key_id")}
    return {**fields, "size": size, "images": images}


def _choices(
    request: Request,
    form_state: FormState,
    own_keys: Sequence[ApiKey],
    models: Sequence[Model],
    *,
    edited: GenerationRecord | None,
) -> Mapping[str, Any]:
    """What the page's form offers to choose, and what is chosen: at first, what fits the image that is to be edited."""
    default = services_of(request).generations.catalogue.catalogue.default
    editors = [each for each in models if takes_of([each]).images]
    asked = form_state.values.get("model") or query_value(request, "model")
    model = next((each for each in models if each.name == asked), None) if asked else next(iter(models), None)
    if edited and not asked and model not in editors and editors:
        model = editors[0]
    drawing = [model] if model else models
    names_model = [each.name for each in models] != [default]
    return {
        "model": model,
        "models": models,
        "names_model": names_model,
        "editors": editors,
        "paints": takes_of(models).mask,
        "takes": takes_of(drawing),
        "sizes": _sizes_of(drawing),
        "qualities": list(dict.fromkeys(quality for each in drawing for quality in each.qualities)),
        "selected": {
            "key_id": query_value(request, "key_id") or (_key_for(edited, own_keys) if edited else ""),
            "model": model.name if model and names_model else "",
            "size": "auto" if edited else "",
            **form_state.values,
        },
    }


def _key_for(edited: GenerationRecord, own_keys: Sequence[ApiKey]) -> str:
    """The key that made the image, or else one of its environment: an image of a test key goes into no live one."""
    of_environment = [each.id for each in own_keys if each.environment == edited.environment]
    return edited.key_id if edited.key_id in of_environment else next(iter(of_environment), "")


def _snippet_images(sent: Sequence[SentImage], inputs: Mapping[str, GenerationRecord]) -> Sequence[SnippetImage]:
    """The images as code names them: those of the account by id, and files by names of our own."""
    return [
        SnippetImage(f"image-{number}.png")
        if not isinstance(each, str)
        else SnippetImage(each, each, inputs[each].url if each in inputs else "")
        for number, each in enumerate(sent, start=1)
    ]


def _sizes_of(models: Sequence[Model]) -> Sequence[str]:
    """The usual sizes that any of these models draws; where that is none, all that they draw."""
    usual = [size for size in _SIZES if any(not each.sizes or Size.of(size) in each.sizes for each in models)]
    return usual or [str(size) for each in models for size in each.sizes]


SentForm = Annotated[GenerationForm, form(GenerationForm, render_playground, read_values=read_form_with_images)]


def _admission(preference: Preference | None = None) -> params.Depends:
    async def admit(request: Request, sent: SentForm, session: LoggedInSession) -> AsyncIterator[Admission]:
        async def find_caller() -> Caller:
            async with session.transaction() as database:
                return await keys.find_own_caller(database, account_id=session.user.account_id, key_id=sent.key_id)

        caller, key = await find_caller(), sent.idempotency_key
        async with Admission(
            request, caller, idempotency_key=key, find_again=find_caller, preference=preference
        ) as admission:
            yield admission

    dependency: params.Depends = Depends(admit, scope="function")
    return dependency


FormAdmission = Annotated[Admission, _admission()]
"""The admission that an API request with the key of the form would get. The key is one of the account's own."""

JobAdmission = Annotated[Admission, _admission(Preference(wait_seconds=None))]
"""The same of an asynchronous request, which takes no slot."""


@page.router.get(page.path)
async def show_playground(session: LoggedInSession) -> HTMLResponse:
    """Show the form for a generation, or to an account without keys, the button that creates the first one."""
    return await render_playground(session, UNSENT)


@page.router.post(page.path)
async def generate(sent: SentForm, session: LoggedInSession, admission: FormAdmission) -> HTMLResponse:
    """Request the generation, and show its image."""
    generation = await admission.generate(sent.spec, route=page.path)
    return await render_playground(session, FormState(sent.model_dump()), generation_id=generation.id)


@page.router.post(f"{page.path}/jobs")
async def start(sent: SentForm, admission: JobAdmission) -> Response:
    """Accept the generation for a worker, and go on to the page that shows how far it is."""
    accepted = await admission.accept(sent.spec, route=page.path, terms=JobTerms())
    return redirect(f"{page.path}?generation={accepted.id}")


@page.router.get(f"{page.path}/first-key")
async def show_playground_again() -> Response:
    """Go on to the playground: this address stays in the browser once the first key is created."""
    return redirect(page.path)


@page.router.post(f"{page.path}/first-key")
async def create_first_key(
    sent: Annotated[FirstKeyForm, form(FirstKeyForm, render_playground, limits=limits_of_new_keys)],
    session: LoggedInSession,
    keys_max: KeysMax,
) -> HTMLResponse:
    """Create a key, show it in this response only, and select it in the form."""
    async with session.transaction() as database:
        key = await keys.create(
            database,
            user=session.user,
            name=_FIRST_KEY,
            environment="live",
            keys_max=keys_max,
            form_id=sent.form_id,
        )
    return await render_playground(session, FormState({"key_id": key.id}), new_key=key)
