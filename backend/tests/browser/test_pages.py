"""Every page in a browser: it is accessible, fits its window, escapes markup, and is small."""

from functools import partial
from pathlib import Path

import pytest
from app.core.settings import Settings
from playwright.async_api import Browser, Page, Response, expect
from tests.browser.actions import (
    XSS,
    create_first_key,
    create_key,
    create_markup_content,
    file,
    generate,
    paint,
    png,
    sign_up,
)
from tests.browser.checks import accessibility_violations, horizontal_overflow, lines, screenshot
from tests.browser.conftest import APPEARANCES, DESKTOP, OpenPage
from tests.harness import running

PUBLIC = {"landing": "/", "sign-up": "/sign-up", "log-in": "/log-in", "not-found": "/keys/none"}
PRIVATE = {
    "keys": "/keys",
    "keys-revoked": "/keys?include_revoked=true",
    "models": "/models",
    "usage": "/usage",
    "history": "/history",
    "account": "/account",
}
BYTES_MAX = 150_000


async def check_page(page: Page, name: str) -> None:
    """Checks that the page is accessible and no wider than its window, and takes the screenshot if one is wanted."""
    await page.wait_for_load_state("networkidle")
    await page.evaluate("scrollTo(0, 0)")
    await screenshot(page, name)
    assert await accessibility_violations(page) == [], name
    assert await horizontal_overflow(page) == 0, name


async def edit_with_mask(page: Page, appearance: str) -> None:
    """Edits the image that the page shows, where a mask is painted, with a finger on a phone."""
    await page.get_by_role("link", name="Edit this").click()
    await page.locator("#images").set_input_files([file("a file with quite a long name.png", png("teal"))])
    await check_page(page, f"playground-images-{appearance}")
    await page.get_by_role("button", name="Paint a mask").click()
    canvas = page.locator(".easel > canvas")
    await (canvas.tap() if appearance == "phone" else paint(page, (0.3, 0.7), (0.6, 0.6)))
    await screenshot(page, f"playground-mask-{appearance}", whole=False)
    assert await accessibility_violations(page) == []
    await page.get_by_role("button", name="Use this mask").click()
    await expect(page.locator(".chosen")).to_have_text("Painted")
    await generate(page, "The same at night")


@pytest.mark.parametrize("appearance", APPEARANCES)
async def test_every_page_is_accessible_and_fits_its_window(open_page: OpenPage, appearance: str) -> None:
    page = await open_page(APPEARANCES[appearance])
    for name, path in PUBLIC.items():
        await page.goto(path)
        await check_page(page, f"{name}-{appearance}")
    await page.goto("/sign-up")
    await page.locator("form").evaluate("form => form.noValidate = true")
    await page.get_by_role("button", name="Sign up").click()
    await page.locator("#email-error").wait_for()
    await check_page(page, f"sign-up-refused-{appearance}")
    await sign_up(page)
    await check_page(page, f"playground-empty-{appearance}")
    for path in ("/keys", "/usage", "/history"):
        await page.goto(path)
        await check_page(page, f"{path[1:]}-empty-{appearance}")
    await page.goto("/playground")
    await create_first_key(page)
    await check_page(page, f"playground-first-key-{appearance}")
    await generate(page, "A lighthouse made of paper")
    await check_page(page, f"playground-{appearance}")
    await edit_with_mask(page, appearance)
    for name in ("Website", "Mobile app", "Nightly batch"):
        await create_key(page, name=name)
    await check_page(page, f"key-created-{appearance}")
    for name, path in PRIVATE.items():
        await page.goto(path)
        await check_page(page, f"{name}-{appearance}")
    await page.goto("/keys")
    await page.get_by_role("table").get_by_role("link", name="Revoke").first.click()
    await page.get_by_role("button", name="Revoke the key").wait_for()
    await check_page(page, f"revoke-{appearance}")
    await page.goto("/history")
    await page.get_by_role("link", name="Delete").first.click()
    await page.get_by_role("button", name="Delete the image").wait_for()
    await check_page(page, f"delete-{appearance}")


NARROWEST = {"width": 320, "height": 640}
LONG_EMAIL = f"{'a' * 60}@{'b' * 60}.{'c' * 60}.example.com"


async def test_long_words_widen_no_page_and_the_current_page_is_seen_in_the_menu(open_page: OpenPage) -> None:
    page = await open_page(viewport=NARROWEST)
    for path in ("/", "/sign-up", "/log-in"):
        await page.goto(path)
        assert await horizontal_overflow(page) == 0, path
    await sign_up(page, email=LONG_EMAIL)
    await create_first_key(page)
    await generate(page, "W" * 200)
    await create_key(page, name="W" * 100)
    for path in ("/", "/playground", *PRIVATE.values()):
        await page.goto(path)
        assert await horizontal_overflow(page) == 0, path
        current = page.locator("nav [aria-current=page]")
        for link in await current.all():
            await expect(link).to_be_in_viewport(ratio=1)
    await page.set_viewport_size({"width": DESKTOP["width"], "height": DESKTOP["height"]})
    await page.goto("/keys")
    assert await lines(page.locator("td code")) == 1, "the beginning of a key is not broken"


async def test_markup_is_escaped_on_every_page(page: Page) -> None:
    await create_markup_content(page)
    seen = 0
    for path in (*PUBLIC.values(), *PRIVATE.values(), "/playground"):
        await page.goto(path, wait_until="networkidle")
        assert await page.title() != "owned"
        assert await page.locator("img[src='x']").count() == 0
        seen += XSS in await page.locator("body").inner_text()
    assert seen >= 4, "most pages show the name or the prompt"


async def test_every_page_is_small(page: Page) -> None:
    await create_markup_content(page)
    sizes: dict[str, int] = {}
    for path in (*PUBLIC.values(), *PRIVATE.values(), "/playground"):
        await page.goto("about:blank")  # what the page before still asks for has no body once it is left
        responses: list[Response] = []
        keep = partial(list[Response].append, responses)
        page.on("response", keep)
        await page.goto(path, wait_until="networkidle")
        page.remove_listener("response", keep)
        sizes[path] = sum([len(await each.body()) for each in responses if each.request.resource_type != "image"])
    assert 0 < max(sizes.values()) < BYTES_MAX, sizes


LONG_NAME = "sketch/a-model-with-quite-a-long-name-as-some-gateways-have-them"
SEVERAL_MODELS = f"""
default = "nano-banana"
currency = "USD"

[models.nano-banana]
title = "Nano Banana"
aliases = ["gemini-2.5-flash-image"]
price = {{ "1K" = "0.05", "2K" = "0.08", "4K" = "0.15" }}
[[models.nano-banana.routes]]
provider = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "one"
sizes = ["1024x1024", "1536x1024", "1024x1536", "2048x2048", "3072x2048", "4096x4096"]

[models.picture]
title = "Picture"
aliases = ["gpt-image-1", "dall-e-3"]
price = {{ "1K/low" = "0.011", "1K/high" = "0.167", "2K/low" = "0.02", "2K/high" = "0.3" }}
[[models.picture.routes]]
provider = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "two"
sizes = ["1024x1024", "1536x1024", "2048x2048"]
capabilities = ["quality", "stream"]

[models."{LONG_NAME}"]
title = "Sketch"
[[models."{LONG_NAME}".routes]]
provider = "stub"
"""


async def test_pages_of_several_models_are_accessible_and_fit_a_phone(
    settings: Settings, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text(SEVERAL_MODELS)
    changed = settings.model_copy(update={"models_file": tmp_path / "models.toml"})
    async with running(changed, at_its_own_url=True) as client:
        context = await browser.new_context(base_url=str(client.base_url), **APPEARANCES["phone"])
        page = await context.new_page()
        await sign_up(page)
        await create_first_key(page)
        await page.goto(f"/playground?model={LONG_NAME}")
        await generate(page, "A lighthouse made of paper")
        await page.locator("#images").set_input_files([file("teal.png", png("teal"))])
        await page.get_by_label("Model").select_option("picture")
        await expect(page.locator("#inputs")).to_contain_text("This model draws from words alone.")
        await expect(page.get_by_label("Quality")).to_be_visible()
        await expect(page.get_by_label("Prompt")).to_have_value("A lighthouse made of paper")
        await page.get_by_label("Model").select_option(LONG_NAME)
        await expect(page.locator(".inputs .name")).to_have_text("teal.png")
        for path in ("/models", "/playground?model=picture", "/history", "/usage"):
            await page.goto(path)
            await check_page(page, f"several{path.partition('?')[0].replace('/', '-')}-phone")
        await context.close()
