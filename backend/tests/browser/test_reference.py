"""The API reference in a browser: it shows every operation, and loads nothing from other hosts."""

import httpx2
from playwright.async_api import Page, expect
from tests.browser.checks import screenshot


async def test_the_reference_shows_every_operation(
    site: httpx2.AsyncClient, page_in_every_appearance: Page, appearance: str
) -> None:
    document = (await site.get("/openapi.json")).json()
    operations = sum(len(methods) for methods in document["paths"].values())
    await page_in_every_appearance.goto("/docs")
    await expect(page_in_every_appearance.locator(".opblock")).to_have_count(operations)
    await expect(page_in_every_appearance.get_by_role("heading", name="NanoBanana")).to_be_visible()
    await screenshot(page_in_every_appearance, f"docs-{appearance}")


async def test_the_window_for_credentials_begins_at_the_api_key(page: Page) -> None:
    await page.goto("/docs")
    await page.get_by_role("button", name="Authorize").first.click()
    key = page.locator(".auth-container", has_text="API key").get_by_role("textbox")
    await expect(key).to_be_focused()


async def test_an_operation_can_be_called_from_the_page(page: Page) -> None:
    await page.goto("/docs")
    health = page.locator(".opblock", has_text="/health")
    await health.locator(".opblock-summary-control").click()
    await health.get_by_role("button", name="Try it out").click()
    await health.get_by_role("button", name="Execute").click()
    await expect(health.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
