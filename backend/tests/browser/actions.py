"""What users do in the console, with a mouse and a keyboard."""

from io import BytesIO

from PIL import Image
from playwright.async_api import FilePayload, Page
from tests.harness import PASSWORD, new_email

XSS = "<img src=x onerror=\"document.title='owned'\">"


async def sign_up(page: Page, *, email: str | None = None) -> str:
    """Signs up from the landing page; the email of the new account."""
    email = email or new_email()
    await page.goto("/")
    await page.locator("main").get_by_role("link", name="Sign up").click()
    await page.get_by_label("Email").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign up").click()
    await page.get_by_role("button", name="Create my first key").wait_for()
    return email


async def create_first_key(page: Page) -> None:
    """Presses the button that creates the first key."""
    await page.get_by_role("button", name="Create my first key").click()
    await page.get_by_label("Prompt").wait_for()


async def create_key(page: Page, *, name: str) -> None:
    """Creates a key with this name on the page of keys."""
    await page.goto("/keys")
    await page.get_by_label("Name").fill(name)
    await page.get_by_role("button", name="Create key").click()
    await page.get_by_role("link", name="Back to the keys").wait_for()


async def generate(page: Page, prompt: str) -> None:
    """Sends the form of the playground, which must be open; returns when the image is decoded."""
    await page.get_by_label("Prompt").fill(prompt)
    await page.get_by_role("button", name="Draw").click()
    await page.get_by_role("img", name=prompt, exact=True).evaluate("image => image.decode()")


async def create_markup_content(page: Page) -> None:
    """Signs up, and creates keys and a generation whose names and prompts are markup."""
    await sign_up(page)
    await create_first_key(page)
    await generate(page, XSS)
    await create_key(page, name=XSS)


def png(color: str) -> bytes:
    """An image of 96 x 64 pixels."""
    encoded = BytesIO()
    Image.new("RGB", (96, 64), color).save(encoded, "PNG")
    return encoded.getvalue()


def file(name: str, content: bytes) -> FilePayload:
    """A file of the user's, to be chosen in a file input."""
    return {"name": name, "mimeType": "image/png", "buffer": content}


async def paint(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Paints a stroke in the dialog for masks, between two places in fractions of its width and height."""
    canvas = page.locator(".easel > canvas")
    await canvas.wait_for()
    box = await canvas.bounding_box()
    assert box is not None
    (x, y), *ends = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end)]
    await page.mouse.move(x, y)
    await page.mouse.down()
    for x, y in ends:
        await page.mouse.move(x, y, steps=5)
    await page.mouse.up()
