"""The whole platform on loopback, and a Chromium in which every test fails if the browser reports an error."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest
from app.core.settings import Settings
from playwright.async_api import Browser, Page, async_playwright, expect
from pydantic import SecretStr
from tests.browser import chromium
from tests.browser.browser_errors import BrowserErrors
from tests.harness import fresh_database, running

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 812}

APPEARANCES: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light", "has_touch": True, "is_mobile": True},
}
"""Window, colour scheme and input device. Every page is checked in each of them."""

_PATIENCE_MS = 30_000  # so long that no test fails because the machine is busy
OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
def own_settings(settings: Settings, server_url: str, migrated_url: str) -> Iterator[Settings]:
    """Those of a platform that works on jobs, on a database of its own: it takes no other test's."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield settings.model_copy(update={"work": True, "database_url": SecretStr(url)})


@pytest.fixture(scope="session")
async def site(own_settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the platform, which is at its own PUBLIC_URL."""
    async with running(own_settings, at_its_own_url=True) as client:
        yield client


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The Chromium of this machine, headless."""
    path = chromium.find()
    assert path, "no Chromium or Chrome was found; make test-browser installs one"
    # Chromium refuses to run its sandbox as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=_PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        await browser.close()


@pytest.fixture
async def browser_errors(site: httpx2.AsyncClient) -> AsyncIterator[BrowserErrors]:
    """The errors that the browser reports in this test. It fails if any are left that it has not taken."""
    browser_errors = BrowserErrors(origin=str(site.base_url))
    yield browser_errors
    assert browser_errors.take() == []


@pytest.fixture
async def open_page(
    site: httpx2.AsyncClient, browser: Browser, browser_errors: BrowserErrors
) -> AsyncIterator[OpenPage]:
    """Opens an empty page with cookies of its own, which resolves paths against the platform's URL:
    `page = await open_page(APPEARANCES["dark"], java_script_enabled=False)`, `await page.goto("/docs")`.
    """
    contexts = []

    async def open_one(appearance: dict[str, Any] = APPEARANCES["light"], **more: Any) -> Page:
        context = await browser.new_context(base_url=str(site.base_url), **{**appearance, **more})
        contexts.append(context)
        await browser_errors.listen(context)
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
    return await open_page(APPEARANCES["dark"])


@pytest.fixture
async def phone_page(open_page: OpenPage) -> Page:
    """A page that is 375 pixels wide, with a touch screen."""
    return await open_page(APPEARANCES["phone"])


@pytest.fixture
async def plain_page(open_page: OpenPage) -> Page:
    """A page in a browser that runs no scripts."""
    return await open_page(java_script_enabled=False)


@pytest.fixture(params=APPEARANCES)
def appearance(request: pytest.FixtureRequest) -> str:
    """Runs the test once in every appearance; the name of the current one."""
    name: str = request.param
    return name


@pytest.fixture
async def page_in_every_appearance(appearance: str, open_page: OpenPage) -> Page:
    """A page in the appearance of the current run."""
    return await open_page(APPEARANCES[appearance])
