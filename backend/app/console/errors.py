"""Errors as pages, with the status and the headers that the API gives the same error."""

import asyncio
import re

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from app.console.dependencies import find_session
from app.console.forms import FormState, SubmittedForm
from app.console.pages import PAGES
from app.console.rendering import Page
from app.console.session import redirect
from app.console.state import console_of, state_of
from app.core.errors import ApiError, MethodNotAllowed, NotFound, headers_of
from app.core.logs import logger
from app.features.auth.service import InvalidToken
from app.web.error_responses import problem_response
from app.web.overload import PATHS_WITHOUT_SLOT

_SECTIONS = {
    re.escape(route.path.split("/")[1]) for page in PAGES for route in page.router.routes if isinstance(route, APIRoute)
}

PATHS = re.compile(rf"/|/(?:{'|'.join(sorted(_SECTIONS - {''}))})(?:/.*)?")
"""The paths whose errors are answered as pages: those of the pages, and all below the first segment of each."""

OTHER_PATHS = re.compile(rf"(?!(?:{'|'.join(map(re.escape, sorted(PATHS_WITHOUT_SLOT)))})$).*", re.DOTALL)
"""The paths whose errors are answered as pages to browsers alone: all but those of probes."""

_RERENDER_SECONDS = 2
_FIELDS_TO_RETURN = ("name", "prompt")
"""The fields whose text may have taken long to enter, and is no secret."""


async def answer_error(request: Request, error: ApiError) -> Response:
    """The page for this error, with its status and headers.

    A browser that asks for a page without being logged in is redirected to the log-in page, which redirects it back. A
    form that was refused is shown again, with the values entered. Any other error becomes a page with its sentence and
    the request's id.
    """
    if isinstance(error, InvalidToken) and request.method == "GET":
        return _redirect_to_log_in(request)
    form = state_of(request).form
    response = await _rerender(form, error) if form else None
    if response is None:
        response = await _error_page(request, error)
    response.status_code = error.status
    response.headers.update(headers_of(error))
    return response


async def answer_browser_error(request: Request, error: ApiError) -> Response:
    """The page for this error where a browser asks for a page, and to every other client a problem document."""
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return await answer_error(request, error)
    return await problem_response(request, error)


def _redirect_to_log_in(request: Request) -> Response:
    page = _page_of(request)
    return redirect(f"/log-in?next={page.name}" if page else "/log-in")


def _page_of(request: Request) -> Page | None:
    section: str = request.scope["path"].split("/")[1]
    return console_of(request).page_named(section.removesuffix(".csv"))


async def _rerender(form: SubmittedForm, error: ApiError) -> HTMLResponse | None:
    try:
        async with asyncio.timeout(_RERENDER_SECONDS):
            return await form.rerender(form.session, FormState(form.values, error))
    except InvalidToken:
        entered = [form.values[name] for name in _FIELDS_TO_RETURN if form.values.get(name)]
        return form.session.render("session_ended.html", entered=entered, next_page=_page_of(form.session.request))
    except ApiError:
        return None
    except Exception:  # the fault that ended the request can also stop its page, and the error page needs no database
        logger.exception("form_rerender_failed")
        return None


async def _error_page(request: Request, error: ApiError) -> HTMLResponse:
    state = state_of(request)
    if isinstance(error, NotFound | MethodNotAllowed):
        await _find_session(request)
    renderer = state.session or console_of(request)
    return renderer.render("error.html", error=error, form=FormState(error=error), request_id=state.request_id)


async def _find_session(request: Request) -> None:
    """Has the page of an address without a route show who is logged in, unless the database does not say so in time."""
    try:
        async with asyncio.timeout(_RERENDER_SECONDS):
            await find_session(request)
    except Exception:  # the page needs no session
        logger.exception("error_page_without_session")
