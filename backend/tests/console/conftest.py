"""What tests of the pages share: a server as in development, and people with browsers."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from app.core.settings import Settings
from tests.console.browsing import Browser, browsing
from tests.harness import running


@pytest.fixture(scope="session")
async def site(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """The application on plain HTTP, where a browser's cookies need no TLS."""
    async with running(Settings(**{**settings.model_dump(), "public_url": "http://console.test"})) as client:
        yield client


@pytest.fixture
async def stranger(site: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """A browser that was never here."""
    async with browsing(site) as browser:
        yield browser


@pytest.fixture
async def ada(site: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """Somebody with a new account, logged in."""
    async with browsing(site) as browser:
        assert (await browser.sign_up()).status == 200
        yield browser


@pytest.fixture
async def eve(site: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """Somebody else, logged in too."""
    async with browsing(site) as browser:
        assert (await browser.sign_up()).status == 200
        yield browser
