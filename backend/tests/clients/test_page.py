"""The code of docs/clients.md runs as it stands there, but for the address and the key."""

import asyncio
import re
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
from tests.clients import environments
from tests.clients.conftest import Platform
from tests.clients.report import PAGE
from tests.harness import sign_up
from tests.standins.gemini import image_bytes

BLOCKS = re.findall(r"^```(python|js)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("language", "code"), BLOCKS)
async def test_the_code_of_the_page_makes_an_image(
    platform: Platform, tmp_path: Path, language: str, code: str
) -> None:
    account = await sign_up(platform.client)
    key = await account.create_key(environment="test")
    filled = code.replace("http://127.0.0.1:8000", platform.url).replace("nb_live_...", key.raw)
    (tmp_path / "banana.png").write_bytes(image_bytes(96, 64))
    program, folder = environments.python("python"), tmp_path
    if language == "js":
        node = environments.node()
        if node is None:
            pytest.skip("there is no Node here")
        program, folder = node, environments.folder_for_scripts("node")
    script = folder / f"page.{'mjs' if language == 'js' else 'py'}"
    script.write_text(filled)
    process = await asyncio.create_subprocess_exec(
        program, script, cwd=tmp_path, env={"HOME": str(tmp_path)}, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    used = (await account.client.get("/v1/usage", headers=account.headers)).json()
    assert sum(row["images"] for row in used) == 1
