"""Every page as a browser and its helpers see it: nothing that shuts anybody out, nothing run that was only written."""

from functools import partial

import pytest
from playwright.async_api import Page, Response
from tests.browser.conftest import LOOKS, OpenPage
from tests.browser.people import XSS, create_first_key, create_key, draw, settle, sign_up
from tests.browser.sight import obstacles, overhang, picture

PUBLIC = {"landing": "/", "sign-up": "/sign-up", "log-in": "/log-in", "not-found": "/keys/none"}
PRIVATE = {
    "keys": "/keys",
    "keys-revoked": "/keys?include_revoked=true",
    "usage": "/usage",
    "history": "/history",
    "account": "/account",
}
BYTES_MAX = 150_000


async def look_at(page: Page, name: str) -> None:
    """The page as it is: usable by everybody, within its window; and a picture of it for who asks for one."""
    await page.wait_for_load_state("networkidle")
    await page.evaluate("scrollTo(0, 0)")
    await picture(page, name)
    assert await obstacles(page) == [], name
    assert await overhang(page) == 0, name


@pytest.mark.parametrize("look", LOOKS)
async def test_everybody_can_use_every_page(open_page: OpenPage, look: str) -> None:
    page = await open_page(LOOKS[look])
    for name, path in PUBLIC.items():
        await page.goto(path)
        await look_at(page, f"{name}-{look}")
    await page.goto("/sign-up")
    await page.locator("form").evaluate("form => form.noValidate = true")
    await page.get_by_role("button", name="Sign up").click()
    await page.locator("#email-wrong").wait_for()
    await look_at(page, f"sign-up-refused-{look}")
    await sign_up(page)
    await look_at(page, f"playground-empty-{look}")
    for path in ("/keys", "/usage", "/history"):
        await page.goto(path)
        await look_at(page, f"{path[1:]}-empty-{look}")
    await page.goto("/playground")
    await create_first_key(page)
    await look_at(page, f"playground-first-key-{look}")
    await draw(page, "A lighthouse made of paper")
    await look_at(page, f"playground-{look}")
    for name in ("Website", "Mobile app", "Nightly batch"):
        await create_key(page, name=name)
    await look_at(page, f"key-created-{look}")
    for name, path in PRIVATE.items():
        await page.goto(path)
        await look_at(page, f"{name}-{look}")
    await page.goto("/keys")
    await page.get_by_role("table").get_by_role("link", name="Revoke").first.click()
    await page.get_by_role("button", name="Revoke the key").wait_for()
    await look_at(page, f"revoke-{look}")


async def test_markup_is_text_on_every_page(page: Page) -> None:
    await settle(page)
    seen = 0
    for path in (*PUBLIC.values(), *PRIVATE.values(), "/playground"):
        await page.goto(path, wait_until="networkidle")
        assert await page.title() != "owned"
        assert await page.locator("img[src='x']").count() == 0
        seen += XSS in await page.locator("body").inner_text()
    assert seen >= 4, "or nothing was shown"


async def test_no_page_weighs_much(page: Page) -> None:
    await settle(page)
    weights: dict[str, int] = {}
    for path in (*PUBLIC.values(), *PRIVATE.values(), "/playground"):
        responses: list[Response] = []
        keep = partial(list[Response].append, responses)
        page.on("response", keep)
        await page.goto(path, wait_until="networkidle")
        page.remove_listener("response", keep)
        weights[path] = sum([len(await each.body()) for each in responses if each.request.resource_type != "image"])
    assert 0 < max(weights.values()) < BYTES_MAX, weights
