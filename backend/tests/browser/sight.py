"""What is looked at on a page: whether everybody can use it, whether it fits, and how it looks."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from playwright.async_api import Page

_SCREENSHOTS = os.environ.get("SCREENSHOTS")


def _axe() -> str:
    # The package is not imported: its copy of axe-core is all that is wanted of it.
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text()


async def obstacles(page: Page) -> list[str]:
    """Everything on the page that axe-core finds to shut somebody out: the rule, and the elements that break it."""
    await page.evaluate(_axe())
    found: dict[str, Any] = await page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {', '.join(str(node['target']) for node in violation['nodes'])}"
        for violation in found["violations"]
    ]


async def overhang(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    wider: int = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wider


async def picture(page: Page, name: str) -> None:
    """Where SCREENSHOTS names a folder, the whole page as `name.png` in it."""
    if _SCREENSHOTS:
        await page.screenshot(path=Path(_SCREENSHOTS) / f"{name}.png", full_page=True)
