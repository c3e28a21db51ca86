"""The landing page with its example images, and the files that all pages load."""

import math
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import CurrentSession
from app.console.rendering import Console, Page
from app.console.state import console_of
from app.core.errors import NotFound
from app.features.dependencies import CurrentGenerations
from app.generations.collaborators import Generations
from app.providers import DrawRequest, Size
from app.web.immutable import Part, immutable_response, part_of

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
async def show_landing(session: CurrentSession) -> HTMLResponse:
    """Show what the product is."""
    return session.render(page.template, examples=_EXAMPLES, size=_EXAMPLE_SIZE)


@files.get("/examples/{name}.png")
async def show_example(request: Request, name: str, generations: CurrentGenerations) -> Response:
    """Show one of the example images, which this server's stub draws on the first request for it."""
    if name not in _EXAMPLES:  # before anything of the path becomes part of a header
        raise NotFound
    open_part = partial(_open_example, console_of(request), generations, name)
    return await immutable_response(request, etag=f"example-{name}", open_part=open_part)


@files.get("/static/{name}")
async def show_static_file(request: Request, name: str) -> Response:
    """Show a file that all pages load."""
    file = console_of(request).files.get(name)
    if file is None:
        raise NotFound
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(file.content, media_type=file.media_type, headers=headers)


async def _open_example(console: Console, generations: Generations, name: str, start: int, end: int | None) -> Part:
    if name not in console.examples:
        request = DrawRequest(_EXAMPLES[name], _EXAMPLE_SIZE)
        console.examples[name] = (await generations.providers["test"].draw(request, deadline=math.inf)).content
    return part_of(console.examples[name], "image/png", start, end)
