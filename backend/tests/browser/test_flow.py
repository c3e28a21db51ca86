"""The console in a real browser, by mouse, by keyboard, and without scripts."""

from typing import Literal

from playwright.async_api import Page, expect
from tests.browser.actions import create_first_key, create_key, file, generate, png, sign_up
from tests.browser.conftest import OpenPage
from tests.harness import PASSWORD, new_email

SECONDS_MAX = 60
STEPS_MAX = 8


class Steps:
    """Counts the clicks of a user and the fields that they fill in."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.count = 0

    async def click(self, role: Literal["button", "link"], name: str) -> None:
        self.count += 1
        await self._page.locator("main").get_by_role(role, name=name).click()

    async def fill(self, label: str, text: str) -> None:
        self.count += 1
        await self._page.get_by_label(label).fill(text)


async def test_the_first_image_takes_at_most_eight_clicks_and_fields(page: Page) -> None:
    await page.goto("/")
    steps = Steps(page)
    await steps.click("link", "Sign up")
    await steps.fill("Email", new_email())
    await steps.fill("Password", PASSWORD)
    await steps.click("button", "Sign up")
    await steps.click("button", "Create my first key")
    await steps.fill("Prompt", "A cute banana")
    await steps.click("button", "Draw")
    await page.get_by_role("img", name="A cute banana").wait_for(timeout=SECONDS_MAX * 1000)
    assert steps.count <= STEPS_MAX


async def test_a_key_is_created_with_the_keyboard_alone(page: Page) -> None:
    await sign_up(page)
    await page.goto("/keys")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.id") == "name"
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", (
        "the focus is visible"
    )
    await page.keyboard.type("By hand")
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert "nb_test_" in await page.locator("#raw-key").inner_text()
    assert "By hand" in await page.get_by_role("heading", level=1).inner_text()


async def test_everything_works_without_scripts(plain_page: Page) -> None:
    page = plain_page
    email = await sign_up(page)
    await create_first_key(page)
    await page.get_by_label("Prompt").fill("Without scripts")
    await page.get_by_role("button", name="Draw").click()
    await page.get_by_role("link", name="Edit this").click()
    await page.get_by_label("Prompt").fill("At night")
    await page.get_by_label("Add images").set_input_files([file("red.png", png("red")), file("blue.png", png("blue"))])
    await page.get_by_label("Mask file").set_input_files([file("mask.png", b"no image")])
    await page.get_by_role("button", name="Draw").click()
    await page.locator("#mask-error").wait_for()
    await page.get_by_label("Add images").set_input_files([file("red.png", png("red")), file("blue.png", png("blue"))])
    await page.get_by_role("button", name="Draw").click()
    await page.get_by_role("img", name="At night").wait_for()
    await page.goto("/history")
    await expect(page.locator(".sources")).to_have_text("Made from an upload (2)")
    await expect(page.locator(".sources").get_by_role("img", name="Without scripts")).to_have_count(1)
    await create_key(page, name="Second")
    await page.goto("/keys")
    await page.get_by_role("link", name="Revoke Second").click()
    await page.get_by_role("button", name="Revoke the key").click()
    assert await page.get_by_role("rowheader", name="Second").count() == 0
    await page.goto("/usage")
    assert await page.locator("dd").first.inner_text() == "2"
    await page.get_by_role("button", name="Log out").click()
    await page.goto("/keys")
    await page.get_by_label("Email").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/keys")


async def test_the_back_button_shows_no_private_page_after_a_log_out(page: Page) -> None:
    await sign_up(page)
    await create_key(page, name="Private")
    await page.goto("/keys")
    await page.get_by_role("button", name="Log out").click()
    await page.get_by_role("link", name="Log in").wait_for()
    await page.go_back()
    await page.wait_for_load_state()
    assert "Private" not in await page.content()
    assert "/log-in" in page.url


async def test_times_are_shown_in_the_time_zone_of_the_browser(open_page: OpenPage) -> None:
    page = await open_page(timezone_id="Asia/Kathmandu", locale="en-GB")
    await sign_up(page)
    await create_key(page, name="When")
    await page.goto("/keys")
    shown = page.locator("table time").first
    expected = await shown.evaluate(
        "each => new Intl.DateTimeFormat('en-GB', "
        "{dateStyle: 'medium', timeStyle: 'short', timeZone: 'Asia/Kathmandu'}).format(new Date(each.dateTime))"
    )
    assert await shown.inner_text() == expected
    assert (await shown.get_attribute("title") or "").endswith(" UTC")


async def test_a_double_click_is_one_generation(page: Page) -> None:
    await sign_up(page)
    await create_first_key(page)
    await page.get_by_label("Prompt").fill("Only once")
    await page.get_by_role("button", name="Draw").dblclick()
    await page.get_by_role("img", name="Only once").wait_for()
    await page.goto("/usage")
    assert await page.locator("dd").first.inner_text() == "1"


async def test_a_second_image_replaces_the_first_without_leaving_the_page(page: Page) -> None:
    await sign_up(page)
    await create_first_key(page)
    raw = await page.locator("#raw-key").inner_text()
    await generate(page, "The first")
    await generate(page, "The second")
    assert await page.locator("#raw-key").inner_text() == raw, "the new key stays on the page until the user leaves it"
    assert await page.locator("#status").inner_text() == "Your image is ready"
    assert '"prompt": "The second"' in await page.locator("#call-curl-code").inner_text()


async def test_a_refused_generation_moves_the_focus_to_its_error(page: Page) -> None:
    await sign_up(page)
    await create_first_key(page)
    await page.get_by_label("Prompt").fill("  ")
    await page.get_by_role("button", name="Draw").click()
    await page.locator("#prompt-error").wait_for()
    assert await page.evaluate("document.activeElement.id") == "prompt"
    assert await page.locator("#status").inner_text() == await page.locator("#prompt-error").inner_text()
