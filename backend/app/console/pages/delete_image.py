"""Delete an image: asks the user to confirm it first."""

from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import LoggedInSession, form
from app.console.forms import UNSENT, EmptyForm, FormState
from app.console.pages import history
from app.console.rendering import Page
from app.console.session import ConsoleSession, redirect
from app.features.dependencies import CurrentGenerations, services_of
from app.generations import records

page = Page(f"{history.page.path}/{{generation_id}}/delete", template="delete_image.html")


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    generations = services_of(session.request).generations
    generation_id: str = session.request.path_params["generation_id"]
    async with session.transaction() as database:
        generation = await records.find_one(
            generations, database, account_id=session.user.account_id, generation_id=generation_id
        )
    return session.render(page.template, form=form_state, generation=generation)


@page.router.get(page.path)
async def show_delete_image(session: LoggedInSession) -> HTMLResponse:
    """Ask the user to confirm that the image is to be deleted."""
    return await _render(session, UNSENT)


@page.router.post(page.path)
async def delete_image(
    generation_id: str,
    _sent: Annotated[EmptyForm, form(EmptyForm, _render)],
    session: LoggedInSession,
    generations: CurrentGenerations,
) -> Response:
    """Delete the image for good. That it was delivered stays counted."""
    await records.delete_generation(generations, account_id=session.user.account_id, generation_id=generation_id)
    return redirect(history.page.path)
