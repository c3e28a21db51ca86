"""Who is looking at a page: by cookie, and only ever by it."""

import hmac
import re
import secrets
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.console.site import Page, Site
from app.core.db import SessionMaker
from app.core.errors import ApiError
from app.core.settings import Settings
from app.features.auth import sessions
from app.features.auth.service import InvalidToken
from app.models import User

DESTINATIONS = ("playground", "keys", "usage", "history", "account")
"""What a log-in can lead to: names, and never addresses, so that no link of somebody else's leads anywhere else."""

_SEED = re.compile(r"[\w-]{22}", re.ASCII)
_SEED_BYTES = 16


class Forbidden(ApiError):
    status, title, code = 403, "Forbidden", "form_refused"
    detail = "This form did not come from a page of this site. Nothing was done"


class Outdated(Forbidden):
    detail = "This page had grown old, so nothing was done. Please press the button again"


class Visitor:
    """Somebody who looks at pages, logged in or not."""

    def __init__(self, request: Request, *, account: User | None, token: str, seed: str | None) -> None:
        self.request = request
        self.is_signed_in = account is not None
        self._account = account
        self._token = token
        self._seed = seed or secrets.token_urlsafe(_SEED_BYTES)
        self._must_plant = False

    @property
    def account(self) -> User:
        """The account that is logged in. Raises InvalidToken where there is none."""
        if self._account is None:
            raise InvalidToken(credential_sent=False)
        return self._account

    @property
    def proof(self) -> str:
        """What shows that a form came from a page that this visitor was given: nobody else can know it."""
        self._must_plant = not self.is_signed_in
        bound_to = f"session {self._token}" if self.is_signed_in else f"visit {self._seed}"
        return hmac.digest(_site(self.request).form_key, bound_to.encode(), "sha256").hex()

    def check(self, proof: str) -> None:
        """Raises Outdated for what is not this visitor's proof."""
        if not hmac.compare_digest(proof.encode(), self.proof.encode()):
            raise Outdated

    def page(self, template: str, **context: Any) -> Page:
        """The template for this visitor."""
        page = _site(self.request).page(template, visitor=self, path=self.request.scope["path"], **context)
        if self._must_plant:
            _set_cookie(self.request, page, "visit", self._seed)
        return page

    async def leave(self) -> None:
        """Ends the session on the server, if there is one."""
        if self.is_signed_in:
            async with self.transaction() as session:
                await sessions.end_session(session, token=self._token)

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """For pages that are also shown after a route's own transaction has ended."""
        sessions_: SessionMaker = self.request.app.state.sessions
        return sessions_.begin()


async def find_visitor(request: Request) -> Visitor:
    """Whoever the request's cookies name, asked of the database once a request."""
    known: Visitor | None = getattr(request.state, "visitor", None)
    if known is None:
        known = request.state.visitor = await _find(request)
    return known


CurrentVisitor = Annotated[Visitor, Depends(find_visitor)]


async def _find(request: Request) -> Visitor:
    token = request.cookies.get(_cookie_name(request, "session"), "")
    seed = request.cookies.get(_cookie_name(request, "visit"), "")
    account = None
    if token:
        async with request.app.state.sessions.begin() as session:
            account = await sessions.find_session_user(session, token=token)
    return Visitor(request, account=account, token=token, seed=seed if _SEED.fullmatch(seed) else None)


async def _owner(visitor: CurrentVisitor) -> Visitor:
    _ = visitor.account
    return visitor


Owner = Annotated[Visitor, Depends(_owner)]
"""A visitor who is logged in. Anybody else is led to the log-in page."""


def welcome(request: Request, session: sessions.OpenedSession, *, to: str) -> Response:
    """Leads a visitor who has just logged in on. The session is a new one, whatever cookies came."""
    answer = led_to(f"/{to}")
    _set_cookie(request, answer, "session", session.token, seconds=session.expires_in)
    _drop_cookie(request, answer, "visit")
    return answer


def farewell(request: Request, *, to: str) -> Response:
    """Leads a visitor whose session has ended on, and has the browser forget what it kept."""
    answer = led_to(to)
    _drop_cookie(request, answer, "session")
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


def led_to(path: str) -> Response:
    """To another page, with a GET."""
    return RedirectResponse(path, status_code=303)


def destination(request: Request) -> str:
    """Where a log-in leads: what `next` names, and by default the playground."""
    name = request.query_params.get("next", "")
    return name if name in DESTINATIONS else DESTINATIONS[0]


Destination = Annotated[str, Depends(destination)]


def check_origin(request: Request) -> None:
    """Raises Forbidden unless the browser says that a page of this site sent the form.

    That is a page of PUBLIC_URL, or of the name that this very request was sent to, under PUBLIC_URL's scheme.
    """
    public = urlsplit(_settings(request).public_url)
    own = {_origin(public.scheme, netloc) for netloc in (public.netloc, request.headers.get("host", ""))}
    told = request.headers.getlist("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if len(told) != 1 or told[0] not in own or site not in {"same-origin", "none"}:
        raise Forbidden


def _origin(scheme: str, netloc: str) -> str:
    default = {"http": ":80", "https": ":443"}[scheme]
    return f"{scheme}://{netloc.lower().removesuffix(default)}"


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _is_secure(request: Request) -> bool:
    return _settings(request).public_url.startswith("https:")


def _cookie_name(request: Request, kind: str) -> str:
    # The prefix makes browsers refuse the cookie from plain HTTP, from subdomains and for a part of the site.
    return ("__Host-" if _is_secure(request) else "") + _COOKIES[kind]


_COOKIES = {"session": "nanobanana", "visit": "nanobanana-visit"}


def _set_cookie(request: Request, answer: Response, kind: str, value: str, *, seconds: int | None = None) -> None:
    name, secure = _cookie_name(request, kind), _is_secure(request)
    answer.set_cookie(name, value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="lax")


def _drop_cookie(request: Request, answer: Response, kind: str) -> None:
    name, secure = _cookie_name(request, kind), _is_secure(request)
    answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
