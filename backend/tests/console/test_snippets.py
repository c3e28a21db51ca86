"""The Python that the playground gives to copy: it runs with what its first lines say, and no more."""

import ast
import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.console.browser import Browser
from tests.console.test_images import BLUE, MASK, RED, edit

PROMPT = 'it\'s "quoted" \\ 100%\nand goes on'
RUNS = {
    "python": [sys.executable, "-I", "-S"],  # without any package
    "openai": [sys.executable, "-I"],
}


def imported(code: str) -> set[str]:
    """The packages that the code itself imports, besides the standard library."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {each.partition(".")[0] for each in names} - sys.stdlib_module_names


@pytest.mark.parametrize("tab", RUNS)
@pytest.mark.parametrize("has_images", [False, True], ids=["words", "images"])
async def test_the_code_draws_the_image_with_no_package_but_the_one_that_it_has_installed(
    ada: Browser, tmp_path: Path, tab: str, has_images: bool
) -> None:
    _, raw = await ada.create_key()
    page = await ada.generate(PROMPT)
    if has_images:
        page = await ada.open(f"/playground?edit={page.result}")
        page = await edit(ada, ("images", RED), ("mask", MASK), page=page, prompt=PROMPT)
        (tmp_path / "image-2.png").write_bytes(BLUE)
        (tmp_path / "mask.png").write_bytes(MASK)
    code = page.by_id(f"call-{tab}-code").text
    installed = {each.removeprefix("# pip install ") for each in code.splitlines() if each.startswith("# pip install ")}
    assert imported(code) == installed
    command = [*RUNS[tab], "-c", code.replace("http://console.test", ada.origin)]
    run = subprocess.run
    done = await asyncio.to_thread(
        run, command, env={"KEY": raw}, cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    drawn = await ada.client.get(done.stdout.decode().strip().replace("http://console.test", ada.origin))
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
