"""Log out. The form is in the navigation; the page is shown only if that form was refused."""

from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import CurrentSession, form
from app.console.forms import EmptyForm, FormState
from app.console.rendering import Page
from app.console.session import ConsoleSession

page = Page("/log-out", template="log_out.html")


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    return session.render(page.template, form=form_state)


@page.router.post(page.path)
async def log_out(session: CurrentSession, _sent: Annotated[EmptyForm, form(EmptyForm, _render)]) -> Response:
    """End the session on the server, and have the browser delete its cookie."""
    await session.end()
    return session.end_browser_session(redirect_to="/")
