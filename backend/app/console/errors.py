"""Errors as pages, in words, with the status and the headers that the API would give them."""

import asyncio
import re

from fastapi import Request, Response

from app.console.drafts import Draft, Refusable
from app.console.site import Page, Site
from app.console.visits import DESTINATIONS, Visitor, led_to
from app.core.errors import ApiError, headers_of
from app.core.logs import logger
from app.features.auth.service import InvalidToken

PATHS = re.compile(r"/|/(?:sign-up|log-in|log-out|keys|usage|usage\.csv|playground|history|account)(?:/.*)?")
"""All that belongs to the console."""

_REFILL_SECONDS = 2
_KEPT = ("name", "prompt")
"""What took somebody time to type, and is no secret."""


async def answer_error(request: Request, error: ApiError) -> Response:
    """The page that the error means to whoever looks: the form that was refused, with what was typed into it; for
    somebody who is not logged in, the way to the log-in page and back; else what went wrong and the request's id.
    """
    refusable: Refusable | None = getattr(request.state, "refusable", None)
    if isinstance(error, InvalidToken) and request.method == "GET":
        return _led_to_log_in(request)
    page = await _form_again(refusable, error) if refusable else None
    if page is None:
        page = _plain(request, error)
    page.status_code = error.status
    page.headers.update(headers_of(error))
    return page


def _led_to_log_in(request: Request) -> Response:
    name = _destination(request)
    return led_to(f"/log-in?next={name}" if name else "/log-in")


def _destination(request: Request) -> str | None:
    name: str = request.scope["path"].split("/")[1].removesuffix(".csv")
    return name if name in DESTINATIONS else None


async def _form_again(form: Refusable, error: ApiError) -> Page | None:
    try:
        async with asyncio.timeout(_REFILL_SECONDS):
            return await form.again(form.visitor, Draft(form.values, error))
    except InvalidToken:
        kept = [form.values[name] for name in _KEPT if form.values.get(name)]
        return form.visitor.page("ended.html", kept=kept, to=_destination(form.visitor.request))
    except ApiError:
        return None
    except Exception:  # what troubles the request troubles its page too, and there is a plainer one
        logger.exception("form_not_shown_again")
        return None


def _plain(request: Request, error: ApiError) -> Page:
    site: Site = request.app.state.site
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    values = {"error": error, "draft": Draft(error=error), "request_id": request.state.request_id}
    return visitor.page("error.html", **values) if visitor else site.page("error.html", visitor=None, path="", **values)
