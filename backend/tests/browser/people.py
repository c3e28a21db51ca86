"""What a person does in the console, with a mouse and a keyboard."""

from playwright.async_api import Page
from tests.harness import PASSWORD, new_email

XSS = "<img src=x onerror=\"document.title='owned'\">"


async def sign_up(page: Page) -> str:
    """A new account, by the front page; its email."""
    email = new_email()
    await page.goto("/")
    await page.locator("main").get_by_role("link", name="Sign up").click()
    await page.get_by_label("Email").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign up").click()
    await page.get_by_role("button", name="Create my first key").wait_for()
    return email


async def create_first_key(page: Page) -> None:
    """The click that makes it."""
    await page.get_by_role("button", name="Create my first key").click()
    await page.get_by_label("Prompt").wait_for()


async def create_key(page: Page, *, name: str) -> None:
    """A key with a name, made on the page of keys."""
    await page.goto("/keys")
    await page.get_by_label("Name").fill(name)
    await page.get_by_role("button", name="Create key").click()
    await page.get_by_role("link", name="Back to the keys").wait_for()


async def draw(page: Page, prompt: str) -> None:
    """A picture, in the playground that is open; returns when it can be seen."""
    await page.get_by_label("Prompt").fill(prompt)
    await page.get_by_role("button", name="Draw").click()
    await page.get_by_role("img", name=prompt, exact=True).evaluate("picture => picture.decode()")


async def settle(page: Page) -> None:
    """An account with keys and pictures, all of whose names and prompts are markup."""
    await sign_up(page)
    await create_first_key(page)
    await draw(page, XSS)
    await create_key(page, name=XSS)
