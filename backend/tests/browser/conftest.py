"""What tests in a browser stand on: the whole platform on loopback, and somebody who looks at it and complains."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from app.core.settings import Settings
from playwright.async_api import Browser, Page, async_playwright, expect
from tests.browser import chromium
from tests.browser.complaints import Complaints
from tests.harness import running

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light", "has_touch": True, "is_mobile": True},
}
"""What every page is looked at in."""

_PATIENCE_MS = 30_000  # a busy machine fails no test
OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
async def site(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the platform, at the URL that its own answers lead to."""
    async with running(settings, at_its_own_url=True) as client:
        yield client


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The Chromium of this machine, without a window."""
    path = chromium.find()
    assert path, "no Chromium or Chrome was found; make test-browser installs one"
    # Root may have no sandbox, and everybody else keeps it.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=_PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        await browser.close()


@pytest.fixture
async def complaints(site: httpx2.AsyncClient) -> AsyncIterator[Complaints]:
    """What the pages of this test are blamed for: nothing, at its end, that the test has not taken."""
    complaints = Complaints(origin=str(site.base_url))
    yield complaints
    assert complaints.take() == []


@pytest.fixture
async def open_page(site: httpx2.AsyncClient, browser: Browser, complaints: Complaints) -> AsyncIterator[OpenPage]:
    """Opens an empty page of somebody who was never here, with cookies of their own, at whose origin paths begin:
    `page = await open_page(LOOKS["dark"], java_script_enabled=False)`, `await page.goto("/docs")`.
    """
    contexts = []

    async def open_one(look: dict[str, Any] = LOOKS["light"], **more: Any) -> Page:
        context = await browser.new_context(base_url=str(site.base_url), **{**look, **more})
        contexts.append(context)
        await complaints.listen(context)
        return await context.new_page()

    yield open_one
    for context in contexts:
        await context.close()


@pytest.fixture
async def page(open_page: OpenPage) -> Page:
    """A page on a desktop, in light colours."""
    return await open_page()


@pytest.fixture
async def dark_page(open_page: OpenPage) -> Page:
    return await open_page(LOOKS["dark"])


@pytest.fixture
async def phone_page(open_page: OpenPage) -> Page:
    """A page that is 390 pixels wide, touched with fingers."""
    return await open_page(LOOKS["phone"])


@pytest.fixture
async def plain_page(open_page: OpenPage) -> Page:
    """A page of somebody who has turned scripts off."""
    return await open_page(java_script_enabled=False)


@pytest.fixture(params=LOOKS)
def look(request: pytest.FixtureRequest) -> str:
    """The test runs once in every look; this is the name of the one."""
    name: str = request.param
    return name


@pytest.fixture
async def page_in_every_look(look: str, open_page: OpenPage) -> Page:
    """A page in the look of this run: light, dark, or on a phone."""
    return await open_page(LOOKS[look])
