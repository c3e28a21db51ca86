"""Images that go into a generation, in a browser: chosen, dropped, pasted, edited again, and masked."""

import base64

from playwright.async_api import Page, expect
from tests.browser.actions import create_first_key, file, generate, paint, png, sign_up

GIVE = """([kind, name, content]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name, {type: "image/png"}));
  const event = {bubbles: true, cancelable: true};
  document.body.dispatchEvent(kind === "paste"
    ? new ClipboardEvent("paste", {...event, clipboardData: transfer})
    : new DragEvent("drop", {...event, dataTransfer: transfer}));
}"""
"""Drops a file on the page, or pastes it: the browser lets a test do neither with a pointer or a keyboard."""


CHANGED = """async ([before, after]) => {
  const pixels = async (path) => {
    const bitmap = await createImageBitmap(await (await fetch(path)).blob());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  };
  const [one, two] = [await pixels(before), await pixels(after)];
  const changed = [];
  for (let at = 0; at < one.data.length; at += 4) {
    if ([0, 1, 2].some((channel) => one.data[at + channel] !== two.data[at + channel])) changed.push(at / 4);
  }
  const [x, y] = [changed.map((each) => each % one.width), changed.map((each) => Math.floor(each / one.width))];
  const ends = (values) => values.reduce(([from, to], each) => [Math.min(from, each), Math.max(to, each)], [9999, 0]);
  return [one.width, two.width, changed.length, ...ends(x), ...ends(y)];
}"""
"""The widths of two images, how many of their pixels differ, and in which box: left, right, top, bottom."""


async def give(page: Page, kind: str, name: str, content: bytes) -> None:
    await page.evaluate(GIVE, [kind, name, base64.b64encode(content).decode()])


async def press(page: Page, action: str) -> None:
    """Presses a button of the list with the keyboard."""
    await page.get_by_role("button", name=action).focus()
    await page.keyboard.press("Enter")


async def test_images_are_chosen_dropped_pasted_ordered_and_removed_and_errors_keep_them(page: Page) -> None:
    await sign_up(page)
    await create_first_key(page)
    await page.locator("#images").set_input_files([file("red.png", png("red")), file("bad.png", b"no image")])
    await give(page, "drop", "green.png", png("green"))
    await give(page, "paste", "blue.png", png("blue"))
    shown = page.locator(".inputs .name")
    await expect(shown).to_have_text(["red.png", "bad.png", "green.png", "blue.png"])
    await expect(page.locator(".inputs canvas")).to_have_count(3)
    await expect(page.locator("#size")).to_have_value("auto")
    await press(page, "Move later image 1, red.png")
    assert await page.evaluate("document.activeElement.ariaLabel") == "Move later image 2, red.png", "the focus follows"
    await press(page, "Remove image 3, green.png")
    await expect(shown).to_have_text(["bad.png", "red.png", "blue.png"])
    await page.get_by_label("Prompt").fill("Make it night")
    await page.get_by_role("button", name="Draw").click()
    await expect(page.locator(".inputs li").first.locator(".error")).to_contain_text("Image 1: ")
    await expect(shown).to_have_text(["bad.png", "red.png", "blue.png"])
    await press(page, "Remove image 1, bad.png")
    await expect(page.locator(".error")).to_have_count(0)
    await generate(page, "Make it night")
    history = await page.context.new_page()
    await history.goto("/history")
    await expect(history.locator(".sources")).to_have_text("Made from an upload (2)")
    await page.locator("#images").set_input_files([file(f"{number}.png", png("red")) for number in range(15)])
    await expect(shown).to_have_count(16)
    await expect(page.locator(".note")).to_have_text("At most 16 images go in")
    await page.context.clear_cookies()
    await page.get_by_label("Prompt").fill("A session that has ended")
    await page.get_by_role("button", name="Draw").click()
    await expect(page.locator(".message")).to_have_text("You were logged out. Log in in another tab, then try again.")
    await expect(page.get_by_label("Prompt")).to_have_value("A session that has ended")
    await expect(shown).to_have_count(16)


async def test_a_result_is_edited_where_the_mask_is_painted_and_nowhere_else(page: Page) -> None:
    await sign_up(page)
    await create_first_key(page)
    await generate(page, "A harbour")
    before = await page.get_by_role("img", name="A harbour").get_attribute("src")
    await page.get_by_role("link", name="Edit this").click()
    await expect(page.get_by_label("Prompt")).to_be_focused()
    await page.get_by_role("button", name="Paint a mask").click()
    await paint(page, (0.1, 0.1), (0.9, 0.1))
    await page.get_by_role("button", name="Undo").click()
    await paint(page, (0.3, 0.7), (0.6, 0.7))
    await page.get_by_role("button", name="Use this mask").click()
    await expect(page.locator(".chosen")).to_have_text("Painted")
    await generate(page, "At night")
    after = await page.get_by_role("img", name="At night").get_attribute("src")
    width, new_width, count, left, right, top, bottom = await page.evaluate(CHANGED, [before, after])
    assert (width, new_width) == (1024, 1024)
    assert count > 10_000
    brush = 0.08 * 1024 / 2 + 2
    assert 0.3 * 1024 - brush <= left < right <= 0.6 * 1024 + brush
    assert 0.7 * 1024 - brush <= top < bottom <= 0.7 * 1024 + brush
