"""The instruments of the browser tests work: each kind of error is found on a page that has it."""

import httpx2
import pytest
from playwright.async_api import Page, Route
from tests.browser.browser_errors import BrowserErrors
from tests.browser.checks import accessibility_violations, horizontal_overflow

STRICT = "default-src 'none'; connect-src 'self'; img-src 'self' data:"


async def _show(page: Page, body: str, *, policy: str = "default-src * 'unsafe-inline' data:") -> None:
    """Shows a page of this site with this body."""

    async def answer(route: Route) -> None:
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
        await route.fulfill(headers=headers, body=f"<!doctype html><html lang=en><title>A page</title>{body}")

    await page.route("**/test-page", answer)
    await page.goto("/test-page")
    await page.wait_for_load_state("networkidle")


@pytest.mark.parametrize(
    ("body", "directive"),
    [
        ("<script>1</script>", "script-src-elem"),
        ("<button onclick='1'>A</button>", "script-src-attr"),
        ("<p style='color: red'>A</p>", "style-src-attr"),
        ("<style>p { color: red }</style>", "style-src-elem"),
        ("<iframe src='/health'></iframe>", "frame-src"),
    ],
)
async def test_a_violation_of_the_policy_is_reported(
    page: Page, browser_errors: BrowserErrors, body: str, directive: str
) -> None:
    await _show(page, body, policy=STRICT)
    found = browser_errors.take()
    assert [each for each in found if each.startswith(f"policy: {directive} forbids")], found


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("<script>throw new Error('broken')</script>", "script: broken"),
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<img alt='' src='/v1/images/none.png'>", "status 404: {site}/v1/images/none.png"),
    ],
)
async def test_an_error_in_a_page_is_reported(
    site: httpx2.AsyncClient, page: Page, browser_errors: BrowserErrors, body: str, error: str
) -> None:
    await _show(page, body)
    assert browser_errors.take() == [error.format(site=str(site.base_url).rstrip("/"))]


async def test_a_request_to_another_host_is_reported(page: Page, browser_errors: BrowserErrors) -> None:
    await page.route("http://elsewhere.test/**", lambda route: route.fulfill(body=""))
    await _show(
        page, "<script src='http://elsewhere.test/library.js'></script><img alt='' src='data:image/png;base64,'>"
    )
    assert browser_errors.take() == ["foreign request: http://elsewhere.test/library.js"]


async def test_a_violation_of_the_policy_is_reported_without_scripts_too(
    plain_page: Page, browser_errors: BrowserErrors
) -> None:
    await _show(plain_page, "<p style='color: red'>A</p>", policy=STRICT)
    assert [each for each in browser_errors.take() if each.startswith("console: ") and "style" in each]


async def test_the_status_of_a_page_that_the_test_opens_is_not_reported(
    page: Page, browser_errors: BrowserErrors
) -> None:
    answer = await page.goto("/v1/keys")
    assert answer is not None
    assert answer.status == 401
    assert browser_errors.take() == []


async def test_accessibility_violations_and_horizontal_overflow_are_found(phone_page: Page) -> None:
    viewport = "<meta name=viewport content='width=device-width'>"
    await _show(phone_page, f"{viewport}<main><h1>A</h1><input><p style='width: 400px; margin: 0'>A</p></main>")
    assert [each.partition(":")[0] for each in await accessibility_violations(phone_page)] == ["label"]
    assert await horizontal_overflow(phone_page) > 0
    await _show(phone_page, f"{viewport}<main><h1>A</h1><label>B <input></label></main>")
    assert (await accessibility_violations(phone_page), await horizontal_overflow(phone_page)) == ([], 0)
