"""Checks of a page: its accessibility, its width, and a screenshot for people to look at."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Page

_SCREENSHOTS = os.environ.get("SCREENSHOTS")


def _axe() -> str:
    # The package is not imported: only its copy of axe-core is used.
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text()


async def accessibility_violations(page: Page) -> list[str]:
    """The accessibility rules that the page breaks by axe-core: each rule, and the elements that break it."""
    await page.evaluate(_axe())
    found: dict[str, Any] = await page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {', '.join(str(node['target']) for node in violation['nodes'])}"
        for violation in found["violations"]
    ]


async def horizontal_overflow(page: Page) -> int:
    """The number of pixels by which the page is wider than its window."""
    wider: int = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wider


async def lines(text: Locator) -> int:
    """The number of lines that the longest of these texts takes."""
    tops = """each => {
        const range = document.createRange();
        range.selectNodeContents(each);
        return new Set([...range.getClientRects()].map(({ top }) => top)).size;
    }"""
    counted: list[int] = [await each.evaluate(tops) for each in await text.all()]
    return max(counted)


async def screenshot(page: Page, name: str, *, whole: bool = True) -> None:
    """Writes the whole page, or what its window shows, as `name.png` to the folder that SCREENSHOTS names, if any."""
    if _SCREENSHOTS:
        await page.screenshot(path=Path(_SCREENSHOTS) / f"{name}.png", full_page=whole)
