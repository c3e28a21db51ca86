"""`make bench-console`: how soon the page of keys is painted, with as many keys as an account may have."""

import asyncio
import os
import secrets
import statistics
import time

from benchmarks.machine import ACCOUNT, WIDE_OPEN, database, free_port, machine, new_keys, serving
from playwright.async_api import Page, async_playwright, expect
from tests.browser import chromium

KEYS = 100
ROUNDS = 20
GOAL_MS = 200

_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_RESPONSE = "performance.getEntriesByType('navigation')[0].responseEnd"


async def measure(url: str) -> dict[str, list[float]]:
    """Milliseconds from the start of the navigation, round by round, the first of them with an empty cache."""
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
        page = await (await browser.new_context(base_url=url)).new_page()
        await page.goto("/log-in?next=keys")
        await page.get_by_label("Email").fill(ACCOUNT["email"])
        await page.get_by_label("Password").fill(ACCOUNT["password"])
        await page.get_by_role("button", name="Log in").click()
        found: dict[str, list[float]] = {"received": [], "painted": []}
        for _ in range(ROUNDS):
            await page.goto("/keys")
            await expect(page.locator("tbody tr")).to_have_count(KEYS)
            found["received"].append(await page.evaluate(_RESPONSE))
            found["painted"].append(await _painted(page))
        await browser.close()
        return found


async def _painted(page: Page) -> float:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        painted: float | None = await page.evaluate(_FIRST_PAINT)
        if painted is not None:
            return painted
        await asyncio.sleep(0.02)
    raise AssertionError("the page was never painted")


def main() -> None:
    port = free_port()
    settings = {"PORT": str(port), "SECRET_KEY": secrets.token_urlsafe(48), **WIDE_OPEN}
    with database() as url, serving("app.cli", "serve", port=port, DATABASE_URL=url, **settings) as server:
        new_keys(server.url, KEYS)
        found = asyncio.run(measure(server.url))
    print(f"{machine()}; {KEYS} keys, {ROUNDS} rounds; milliseconds from the start of the navigation")
    for name, rounds in found.items():
        print(f"{name:10} median {statistics.median(rounds):6.0f}   first {rounds[0]:6.0f}   most {max(rounds):6.0f}")
    print(f"The goal is a first paint within {GOAL_MS} ms.")


if __name__ == "__main__":
    main()
