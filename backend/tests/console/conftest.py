"""A server without TLS, as in development, and browsers of several accounts."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from app.core.settings import Settings
from tests.console.browser import Browser, new_browser
from tests.harness import running


@pytest.fixture(scope="session")
async def site(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application with an http PUBLIC_URL: its cookies are not Secure, so that a client keeps them."""
    async with running(Settings(**{**settings.model_dump(), "public_url": "http://console.test"})) as client:
        yield client


@pytest.fixture
async def anonymous(site: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """A browser that is not logged in."""
    async with new_browser(site) as browser:
        yield browser


@pytest.fixture
async def ada(site: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """A browser that is logged in to a new account."""
    async with new_browser(site) as browser:
        assert (await browser.sign_up()).status == 200
        yield browser


@pytest.fixture
async def eve(site: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """A browser that is logged in to another new account."""
    async with new_browser(site) as browser:
        assert (await browser.sign_up()).status == 200
        yield browser
