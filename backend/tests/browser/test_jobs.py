"""The playground draws without its page: a generation outlives a reload and a closed tab, and is cancelled."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect
from pydantic import SecretStr
from tests.browser.actions import create_first_key, sign_up
from tests.browser.browser_errors import BrowserErrors
from tests.browser.checks import accessibility_violations, horizontal_overflow, screenshot
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.harness import fresh_database
from tests.standins.gemini import blocked_prompt, drawn, image_bytes

FIRST, SECOND = "A lighthouse made of paper", "A harbour with quite a long prompt that has to be cut on a small screen"
WIDE: ViewportSize = {"width": 1280, "height": 800}
NARROW: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture
def own_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database whose jobs no other application takes, and whose worker takes no other test's."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture
async def there(own_database_url: str, start: Start) -> AsyncIterator[Painted]:
    """A platform whose live keys cost, and which draws one generation at a time."""
    settings = {"database_url": SecretStr(own_database_url), "work": True, "jobs_at_a_time": 1}
    async with painted(start, public_url="http://console.test", **settings) as there:
        yield there


async def check(page: Page, name: str) -> None:
    """The page is accessible and fits, on a desktop in light colours and on a small phone in dark ones."""
    for appearance in ("light", "dark"):
        if appearance == "dark":
            await page.emulate_media(color_scheme="dark")
            await page.set_viewport_size(NARROW)
        await screenshot(page, f"{name}-{appearance}")
        assert await accessibility_violations(page) == [], (name, appearance)
        assert await horizontal_overflow(page) == 0, (name, appearance)
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size(WIDE)


async def draw(page: Page, prompt: str) -> None:
    await page.get_by_label("Prompt").fill(prompt)
    await page.get_by_role("button", name="Draw").click()
    await page.wait_for_url("**/playground?generation=gen_*")


async def test_a_generation_outlives_a_reload_and_its_tab_and_one_that_waits_is_cancelled(
    there: Painted, browser: Browser
) -> None:
    drawing = asyncio.Event()
    there.provider.faults.append(replace(drawn(image_bytes(1024, 1024)), gate=drawing))
    context = await browser.new_context(base_url=str(there.client.base_url), reduced_motion="reduce")
    errors = BrowserErrors(origin=str(there.client.base_url))
    await errors.listen(context)
    page = await context.new_page()
    await sign_up(page)
    await create_first_key(page)
    await draw(page, FIRST)
    result, status = page.locator("#result"), page.locator("#status")
    await expect(result).to_contain_text("Drawing, ")
    await expect(result.get_by_role("button", name="Cancel")).to_have_count(0)
    await expect(status).to_have_text("Drawing")
    await page.reload()
    await expect(result).to_contain_text(re.compile(r"Drawing, \d+ s"))
    await expect(page.get_by_label("Prompt")).to_have_value(FIRST)
    first = page.url
    await page.get_by_label("Prompt").fill(" ")
    await page.get_by_role("button", name="Draw").click()
    await page.locator("#prompt-error").wait_for()
    await expect(result).to_contain_text("Drawing, ")

    await draw(page, SECOND)
    await expect(result).to_contain_text("Waiting, position 1")
    await page.reload()
    await expect(result).to_contain_text("Waiting, position 1")
    await check(page, "playground-waiting")
    history = await context.new_page()
    await history.goto("/history")
    unfinished = history.locator(".unfinished li")
    await expect(unfinished).to_contain_text([f"{SECOND} ", f"{FIRST} "])
    await check(history, "history-unfinished")
    await page.get_by_role("button", name=f"Cancel {SECOND}").click()
    await expect(result).to_contain_text("It was cancelled, and nothing was drawn.")
    await expect(result).to_be_focused()
    await check(page, "playground-cancelled")
    await expect(unfinished).to_have_count(1)

    await page.close()
    drawing.set()
    await expect(history.locator(".history figure")).to_contain_text([FIRST])
    await expect(unfinished).to_have_count(0)
    page = await context.new_page()
    await page.goto(first)
    await page.get_by_role("img", name=FIRST, exact=True).evaluate("image => image.decode()")
    assert len(there.provider.seen) == 1
    assert errors.take() == []
    await context.close()


async def test_a_generation_that_was_refused_is_in_the_history_and_its_prompt_can_be_tried_again(
    there: Painted, browser: Browser
) -> None:
    there.provider.faults.append(blocked_prompt("PROHIBITED_CONTENT"))
    context = await browser.new_context(base_url=str(there.client.base_url), reduced_motion="reduce")
    errors = BrowserErrors(origin=str(there.client.base_url))
    await errors.listen(context)
    page = await context.new_page()
    await sign_up(page)
    await create_first_key(page)
    await draw(page, SECOND)
    await expect(page.locator("#result .error")).to_have_text("The provider refuses to draw this prompt.")
    await expect(page.locator("#status")).to_have_text("The provider refuses to draw this prompt")
    await expect(page.locator("#result .hint code")).to_have_text(page.url.partition("=")[2])
    await check(page, "playground-failed")
    await page.goto("/history")
    await expect(page.locator(".undelivered li")).to_contain_text(["The provider refuses to draw this prompt"])
    await check(page, "history-undelivered")
    await page.get_by_role("link", name="Try again").click()
    await expect(page.get_by_label("Prompt")).to_have_value(SECOND)
    assert errors.take() == []
    await context.close()
