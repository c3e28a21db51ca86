"""The front door: what this is, how it is called, and what it draws; and the files that all pages share."""

import math
from functools import partial

from fastapi import APIRouter, Request, Response

from app.console.site import Page, Site
from app.console.visits import CurrentVisitor
from app.core.errors import NotFound
from app.core.web.immutable import Part, immutable, part_of
from app.features.generate.dependencies import CurrentStudio
from app.features.generate.studio import Studio
from app.providers import DrawRequest, Size

router = APIRouter(include_in_schema=False)

_EXAMPLES = {
    "banana": "A cute banana",
    "hills": "Morning over the hills",
    "letters": "Letters from the sea",
    "lisbon": "Good night, Lisbon",
    "jazz": "Slow jazz on a Sunday",
    "nowhere": "A map of nowhere",
}
_EXAMPLE_SIZE = Size(480, 480)


@router.get("/")
async def show_landing(visitor: CurrentVisitor) -> Page:
    """What this is."""
    return visitor.page("landing.html", examples=_EXAMPLES, size=_EXAMPLE_SIZE)


@router.get("/examples/{name}.png")
async def show_example(request: Request, name: str, studio: CurrentStudio) -> Response:
    """One of the pictures on the front page, drawn by this server when it is first asked for."""
    return await immutable(request, etag=f"example-{name}", open_part=partial(_open_example, request, studio, name))


@router.get("/static/{name}")
async def show_static_file(request: Request, name: str) -> Response:
    """A file that all pages share."""
    site: Site = request.app.state.site
    file = site.files.get(name)
    if file is None:
        raise NotFound
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(file.content, media_type=file.media_type, headers=headers)


async def _open_example(request: Request, studio: Studio, name: str, start: int, end: int | None) -> Part:
    if name not in _EXAMPLES:
        raise NotFound
    site: Site = request.app.state.site
    if name not in site.examples:
        example = DrawRequest(_EXAMPLES[name], _EXAMPLE_SIZE)
        site.examples[name] = (await studio.providers["test"].draw(example, deadline=math.inf)).content
    return part_of(site.examples[name], "image/png", start, end)
