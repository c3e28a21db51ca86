"""The tests in a browser see what they must not: each kind of complaint is found on a page that was made to earn it."""

import httpx2
import pytest
from playwright.async_api import Page, Route
from tests.browser.complaints import Complaints
from tests.browser.sight import obstacles, overhang

STRICT = "default-src 'none'; connect-src 'self'; img-src 'self' data:"


async def _show(page: Page, body: str, *, policy: str = "default-src * 'unsafe-inline' data:") -> None:
    """A page of this site with such a body."""

    async def answer(route: Route) -> None:
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
        await route.fulfill(headers=headers, body=f"<!doctype html><html lang=en><title>A page</title>{body}")

    await page.route("**/made-up", answer)
    await page.goto("/made-up")
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
async def test_what_the_pages_policy_forbids_is_a_complaint(
    page: Page, complaints: Complaints, body: str, directive: str
) -> None:
    await _show(page, body, policy=STRICT)
    found = complaints.take()
    assert [each for each in found if each.startswith(f"policy: {directive} forbids")], found


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>throw new Error('broken')</script>", "script: broken"),
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<img alt='' src='/v1/images/none.png'>", "status 404: {site}/v1/images/none.png"),
    ],
)
async def test_what_breaks_in_a_page_is_a_complaint(
    site: httpx2.AsyncClient, page: Page, complaints: Complaints, body: str, complaint: str
) -> None:
    await _show(page, body)
    assert complaints.take() == [complaint.format(site=str(site.base_url).rstrip("/"))]


async def test_what_a_page_fetches_elsewhere_is_a_complaint(page: Page, complaints: Complaints) -> None:
    await page.route("http://elsewhere.test/**", lambda route: route.fulfill(body=""))
    await _show(
        page, "<script src='http://elsewhere.test/library.js'></script><img alt='' src='data:image/png;base64,'>"
    )
    assert complaints.take() == ["elsewhere: http://elsewhere.test/library.js"]


async def test_a_refused_policy_is_seen_without_scripts_too(plain_page: Page, complaints: Complaints) -> None:
    await _show(plain_page, "<p style='color: red'>A</p>", policy=STRICT)
    assert [each for each in complaints.take() if each.startswith("console: ") and "style" in each]


async def test_a_problem_that_the_test_asks_for_is_no_complaint(page: Page, complaints: Complaints) -> None:
    answer = await page.goto("/v1/keys")
    assert answer is not None
    assert answer.status == 401
    assert complaints.take() == []


async def test_obstacles_and_overhang_are_found(phone_page: Page) -> None:
    viewport = "<meta name=viewport content='width=device-width'>"
    await _show(phone_page, f"{viewport}<main><h1>A</h1><input><p style='width: 400px; margin: 0'>A</p></main>")
    assert [each.partition(":")[0] for each in await obstacles(phone_page)] == ["label"]
    assert await overhang(phone_page) > 0
    await _show(phone_page, f"{viewport}<main><h1>A</h1><label>B <input></label></main>")
    assert (await obstacles(phone_page), await overhang(phone_page)) == ([], 0)
