"""The session of a browser with the console: its cookies, the user who is logged in, and its CSRF token."""

import hmac
import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.balance import BalanceState
from app.billing.balance import find as find_balance
from app.console.csrf import InvalidCsrfToken
from app.console.rendering import Console
from app.core.db import SessionMaker
from app.core.errors import NotFound
from app.features.auth import sessions
from app.features.auth.service import InvalidToken
from app.models import User
from app.web.state import request_state

_SESSION_COOKIE, _NONCE_COOKIE = "nanobanana", "nanobanana-csrf-nonce"
_NONCE = re.compile(r"[\w-]{22}", re.ASCII)
_NONCE_BYTES = 16


class ConsoleSession:
    """The session that one request belongs to, by its cookies. Nobody is logged in before `load_user`."""

    def __init__(
        self, request: Request, console: Console, session_maker: SessionMaker, *, currency: str | None
    ) -> None:
        self.request = request
        self.currency = currency
        """Of all amounts; None where no model has a price."""
        self._console = console
        self._session_maker = session_maker
        self._user: User | None = None
        self._balance: BalanceState | None = None
        self._token = self._cookie(_SESSION_COOKIE)
        sent_nonce = self._cookie(_NONCE_COOKIE)
        self._csrf_nonce = sent_nonce if _NONCE.fullmatch(sent_nonce) else secrets.token_urlsafe(_NONCE_BYTES)
        self._must_set_nonce = False

    async def load_user(self) -> None:
        """Reads from the database which user is logged in with the session's cookie, if any, and the balance."""
        if self._token:
            async with self.transaction() as database:
                self._user = await sessions.find_session_user(database, token=self._token)
                await self.load_balance(database)
        if self._user is not None:
            request_state(self.request.scope)["account"] = self._user.account_id

    async def load_balance(self, database: AsyncSession) -> None:
        """Reads the balance as it is now, where anything is charged: for pages that show what they have changed."""
        if self._user is not None and self._console.charges:
            self._balance = await find_balance(database, account_id=self._user.account_id)

    @property
    def is_logged_in(self) -> bool:
        return self._user is not None

    @property
    def user(self) -> User:
        """The user who is logged in. Raises InvalidToken if nobody is."""
        if self._user is None:
            raise InvalidToken(credential_sent=False)
        return self._user

    @property
    def has_balance(self) -> bool:
        """Whether the user's account is charged for anything."""
        return self._balance is not None

    @property
    def balance(self) -> BalanceState:
        """The money of the user's account. Raises InvalidToken if nobody is logged in, and NotFound where nothing is
        charged.
        """
        if self._user is None:
            raise InvalidToken(credential_sent=False)
        if self._balance is None:
            raise NotFound
        return self._balance

    @property
    def csrf_token(self) -> str:
        """The token of the session's forms. No other site can know it: it is bound to the session's cookie, or before
        a log-in to a cookie with a nonce, which `render` then sets.
        """
        return self._csrf_tokens[0]

    @property
    def _csrf_tokens(self) -> Sequence[str]:
        """The session's token under each secret whose signatures are accepted, the one that signs first."""
        self._must_set_nonce = not self.is_logged_in
        bound_to = f"session {self._token}" if self.is_logged_in else f"nonce {self._csrf_nonce}"
        return [hmac.digest(key, bound_to.encode(), "sha256").hex() for key in self._console.csrf_keys]

    def check_csrf_token(self, sent: str) -> None:
        """Raises InvalidCsrfToken for any token but the session's."""
        if not any(hmac.compare_digest(sent.encode(), token.encode()) for token in self._csrf_tokens):
            raise InvalidCsrfToken

    def render(self, template: str, **context: Any) -> HTMLResponse:
        """The page that the template makes of `context` and of this session."""
        response = self._console.render(template, session=self, path=self.request.scope["path"], **context)
        if self._must_set_nonce:
            self._set_cookie(response, _NONCE_COOKIE, self._csrf_nonce)
        return response

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction of its own, for pages that are also rendered after the route's transaction has ended."""
        return self._session_maker.begin()

    async def end(self) -> None:
        """Ends the session on the server: its cookie logs nobody in any more. Does nothing if nobody is logged in."""
        if self.is_logged_in:
            async with self.transaction() as database:
                await sessions.end_session(database, token=self._token)

    def start_browser_session(self, opened: sessions.OpenedSession, *, redirect_to: str) -> Response:
        """Has the browser replace its cookies by that of the session that was opened, and go to the page at a path."""
        response = redirect(redirect_to)
        self._set_cookie(response, _SESSION_COOKIE, opened.token, seconds=opened.expires_in)
        self._delete_cookie(response, _NONCE_COOKIE)
        return response

    def end_browser_session(self, *, redirect_to: str) -> Response:
        """Has the browser delete the session's cookie and all pages in its cache, and go to the page at a path."""
        response = redirect(redirect_to)
        self._delete_cookie(response, _SESSION_COOKIE)
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    def _cookie(self, name: str) -> str:
        return self.request.cookies.get(self._console.cookie_prefix + name, "")

    def _set_cookie(self, response: Response, name: str, value: str, *, seconds: int | None = None) -> None:
        response.set_cookie(self._console.cookie_prefix + name, value, max_age=seconds, **self._console.cookie_options)

    def _delete_cookie(self, response: Response, name: str) -> None:
        response.delete_cookie(self._console.cookie_prefix + name, **self._console.cookie_options)


def redirect(path: str) -> Response:
    """Has the browser go on with a GET of this path."""
    return RedirectResponse(path, status_code=303)
