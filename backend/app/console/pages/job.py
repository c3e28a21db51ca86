"""A generation that waits or is drawn: the part of the playground that shows how far it is, and its cancellation."""

from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import LoggedInSession, NextPage, form
from app.console.forms import EmptyForm
from app.console.image_inputs import takes_of
from app.console.pages import playground
from app.console.rendering import Page
from app.console.session import redirect
from app.features.dependencies import CurrentGenerations
from app.generations.jobs import state
from app.generations.jobs.cancel import cancel

page = Page(f"{playground.page.path}/jobs/{{generation_id}}", template="_result.html")


@page.router.get(page.path)
async def show_progress(generation_id: str, session: LoggedInSession, generations: CurrentGenerations) -> HTMLResponse:
    """Show how far it is, as the part of a page that the script replaces."""
    found = await state.find(generations, account_id=session.user.account_id, generation_id=generation_id)
    editors = [each for each in generations.catalogue.catalogue if takes_of([each]).images]
    return session.render(page.template, shown=found, editors=editors, now=generations.clock())


@page.router.post(f"{page.path}/cancel")
async def cancel_job(
    generation_id: str,
    _sent: Annotated[EmptyForm, form(EmptyForm, playground.render_playground)],
    session: LoggedInSession,
    generations: CurrentGenerations,
    next_page: NextPage,
) -> Response:
    """Cancel the request if no provider draws it yet, and go on to the page that shows what has become of it."""
    found = await state.find(generations, account_id=session.user.account_id, generation_id=generation_id)
    await cancel(generations, request_id=found.request_id)
    is_shown_alone = next_page is playground.page
    return redirect(f"{next_page.path}?generation={found.id}" if is_shown_alone else next_page.path)
