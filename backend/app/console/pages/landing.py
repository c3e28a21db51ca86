"""The landing page with its example images, and the files that all pages load."""

import math
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import CurrentSession
from app.console.rendering import Page
from app.console.state import console_of
from app.core.errors import NotFound
from app.features.dependencies import CurrentGenerations
from app.generations.collaborators import Generations
from app.providers import DrawRequest, Size
from app.storage import Stored, stored_bytes
from app.web.client_address import origin_of
from app.web.immutable import immutable_response

page = Page("/", template="landing.html")
files = APIRouter(include_in_schema=False)

_EXAMPLES = {
    "banana": "A cute banana",
    "hills": "Morning over the hills",
    "letters": "Letters from the sea",
    "lisbon": "Good night, Lisbon",
    "jazz": "Slow jazz on a Sunday",
    "nowhere": "A map of nowhere",
}
_EXAMPLE_SIZE = Size(480, 480)


@page.router.get(page.path)
async def show_landing(session: CurrentSession, generations: CurrentGenerations) -> HTMLResponse:
    """Show what the product is, and where the stub draws, how another model is put behind it."""
    catalogue = generations.catalogue.catalogue
    is_stub = catalogue.models[catalogue.default].is_free
    return session.render(page.template, examples=_EXAMPLES, size=_EXAMPLE_SIZE, is_stub=is_stub)


@files.head("/examples/{name}.png")
@files.get("/examples/{name}.png")
async def show_example(request: Request, name: str, generations: CurrentGenerations) -> Response:
    """Show one of the example images, which this server's stub draws when it is asked for."""
    if name not in _EXAMPLES:
        raise NotFound
    return await immutable_response(
        request,
        etag=f"example-{name}",
        media_type="image/png",
        find_size=partial(_find_example_size, generations, name),
        open_part=partial(_open_example, generations, name, origin_of(request).host),
    )


@files.get("/static/{name}")
async def show_static_file(request: Request, name: str) -> Response:
    """Show a file that all pages load."""
    file = console_of(request).files.get(name)
    if file is None:
        raise NotFound
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(file.content, media_type=file.media_type, headers=headers)


async def _open_example(generations: Generations, name: str, group: str, start: int, end: int | None) -> Stored:
    draw = partial(_draw_example, generations, name, group)
    return stored_bytes(await generations.drawn.fetch(name, draw, group=group), start, end)


async def _draw_example(generations: Generations, name: str, group: str) -> bytes:
    request = DrawRequest(_EXAMPLES[name], _EXAMPLE_SIZE, group=group)
    return (await generations.catalogue.stub.draw(request, deadline=math.inf)).content


async def _find_example_size(generations: Generations, name: str) -> int | None:
    return generations.drawn.size_of(name)
