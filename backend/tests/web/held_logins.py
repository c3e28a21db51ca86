"""Requests that the application works on until a test lets them go: logins of one address, which are then a 401."""

import asyncio

import pytest
from app.features.auth import service
from app.features.auth.service import Accounts, InvalidCredentials, Login
from tests.raw_http import post_of

_EMAIL = "held@example.com"
LOGIN = post_of("/v1/auth/login", b'{"email": "%b", "password": "correct horse battery staple"}' % _EMAIL.encode())


class HeldLogins:
    """The logins that are held. `begun` is released once for each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.let_go = asyncio.Semaphore(0), asyncio.Event()
        log_in = service.log_in

        async def log_in_later(accounts: Accounts, *, email: str, password: str) -> Login:
            if email != _EMAIL:
                return await log_in(accounts, email=email, password=password)
            self.begun.release()
            await self.let_go.wait()
            raise InvalidCredentials

        monkeypatch.setattr(service, "log_in", log_in_later)
