"""The README's commands, unchanged, with Gemini behind the server: the program itself, bash and curl."""

import asyncio
import re
import shlex
import subprocess
from io import BytesIO
from pathlib import Path

from PIL import Image
from tests.standins.gemini import GeminiStandIn
from tests.standins.wire import serving
from tests.test_cli import serving as serving_nanobanana

README = (Path(__file__).parents[2] / "README.md").read_text()
PROVIDER_KEY = "canary-key-of-the-provider-0123456789"


def code_under(heading: str) -> str:
    """The first block of code under this heading."""
    code = README.partition(f"\n## {heading}\n")[2].partition("```bash\n")[2].partition("```")[0]
    assert code, heading
    return code


def line_with(words: str) -> str:
    """The command in the API's tour that contains this text, with its continuation lines."""
    [found] = re.findall(
        rf"^((?:[^\n]*\\\n)*[^\n]*{re.escape(words)}[^\n]*)$", code_under("The API in curl"), re.MULTILINE
    )
    return str(found)


async def bash(script: str, folder: Path) -> str:
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = await asyncio.to_thread(subprocess.run, command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def size_of(picture: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(BytesIO(picture.read_bytes())) as opened:
        opened.load()
        return opened.format, opened.size


async def test_the_readmes_commands_make_an_image_with_gemini(tmp_path: Path, database_url: str) -> None:
    gemini = GeminiStandIn(api_key=PROVIDER_KEY)
    assert "IMAGE_PROVIDER=gemini GEMINI_API_KEY=... make run" in README
    async with serving(gemini.answer) as url:
        settings = {"IMAGE_PROVIDER": "gemini", "GEMINI_API_KEY": PROVIDER_KEY, "GEMINI_BASE_URL": url}
        server = serving_nanobanana(tmp_path, DATABASE_URL=database_url, **settings, LOG_LEVEL="DEBUG")
        _, said = await asyncio.to_thread(server.__enter__)
        try:
            here = said.partition("NanoBanana is at ")[2].split()[0]
            await first_picture(gemini, tmp_path, here)
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)
    assert PROVIDER_KEY not in said + (tmp_path / "stderr").read_text()


async def first_picture(gemini: GeminiStandIn, folder: Path, here: str) -> None:
    words = code_under("First image in sixty seconds").replace("http://127.0.0.1:8000", here)
    email = f"{folder.name}@example.com".replace("_", "-")
    words = words.replace("you@example.com", email)
    told = await bash(f"{words}\necho; echo $KEY", folder)
    generation_id, key = re.findall(r"/v1/images/(gen_\w+)\.png", told)[0], told.split()[-1]
    as_defined = f"URL={here}\nJSON='Content-Type: application/json'\nKEY={shlex.quote(key)}\n"
    look = line_with("-o banana.png").replace("gen_....png", f"{generation_id}.png")
    await bash(as_defined + look, folder)
    assert size_of(folder / "banana.png") == ("PNG", (1024, 1024))
    drawn = [seen for seen in gemini.seen if seen.method == "POST"]
    assert [seen.headers["x-goog-api-key"] for seen in drawn] == [PROVIDER_KEY]
    again = line_with("Idempotency-Key: order-4711")
    first, second = [await bash(as_defined + again, folder) for _ in range(2)]
    assert first == second
    twin = await bash(as_defined + line_with('"n":2'), folder)
    assert len(set(re.findall(r"gen_\w+\.png", twin))) == 2
    asked = len(gemini.seen)
    assert asked == len([seen for seen in gemini.seen if seen.method == "GET"]) + 4
    test_key = as_defined.replace(key, await new_test_key(folder, here, email))
    assert "gen_" in await bash(test_key + line_with('"size":"1024x1024"'), folder)
    assert len(gemini.seen) == asked, "a test key reached the provider"


async def new_test_key(folder: Path, here: str, email: str) -> str:
    account = f'ACCOUNT=\'{{"email":"{email}","password":"a long password"}}\'\n'
    as_defined = f"URL={here}\nJSON='Content-Type: application/json'\n{account}"
    logged_in = await bash(as_defined + line_with("/v1/auth/login"), folder)
    token = re.findall(r'"access_token":"([^"]*)"', logged_in)[0]
    create = line_with('"environment":"live"').replace('"environment":"live"', '"environment":"test"')
    made = await bash(f"{as_defined}TOKEN={token}\n{create}", folder)
    return str(re.findall(r'"key":"([^"]*)"', made)[0])
