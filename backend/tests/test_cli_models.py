"""`nanobanana models` and `nanobanana check` with a file of models: what they print of it and of each of its routes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.standins.gemini import MODEL as GEMINI_MODEL
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import MODEL as OPENAI_MODEL
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import serving
from tests.test_cli import nanobanana_in_here

SECRETS = {
    "ENDPOINT_KEY": "canary-key-of-the-endpoint-0123456789",
    "WRONG_KEY": "canary-key-that-is-refused-0123456789",
    "HEADER_VALUE": "canary-value-of-a-header-0123456789",
}
MODELS = """
default = "picture"
currency = "USD"

[models.picture]
title = "Picture"
aliases = ["gpt-image-1", "dall-e-3"]
price = {{ low = "0.02", high = "0.20" }}

[[models.picture.routes]]
provider = "openai"
base_url = "{endpoint}/v1"
model = "{openai_model}"
key = "ENDPOINT_KEY"
cost = {{ low = "0.011", high = "0.167" }}
sizes = ["1024x1024", "1536x1024"]
capabilities = ["quality", "stream"]

[[models.picture.routes]]
name = "closed"
order = 2
provider = "gemini"
base_url = "{google}"
model = "{gemini_model}"
key = "WRONG_KEY"
sizes = {{ "1024x1024" = "1:1/1K" }}
capabilities = ["quality"]

[[models.picture.routes]]
name = "dead"
order = 3
provider = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "another"
headers = {{ "x-token" = "HEADER_VALUE" }}
sizes = ["1024x1024"]

[models.drawn]
input_price = "0.0020"

[[models.drawn.routes]]
provider = "stub"
"""
OFFLINE = """\
picture (default): Picture
  aliases: gpt-image-1, dall-e-3
  sizes: 1024x1024, 1536x1024
  qualities: low, high
  capabilities: quality, stream
  price: low 0.02, high 0.2 USD
  route picture/1: openai {openai_model}
  route closed: gemini {gemini_model}
  route dead: openai another
drawn: drawn
  sizes: any that the stub draws
  capabilities: edit, mask, references:16
  price: 0 USD
  price of an image that goes in: 0.002 USD
  route drawn/1: stub
"""


@dataclass(frozen=True)
class Deployment:
    """A file of models, of whose routes one can be used, one refuses its key, and one cannot be reached."""

    folder: Path
    google: GeminiStandIn
    endpoint: OpenAIStandIn

    async def run(self, *arguments: str, **changes: str) -> tuple[str, str, int]:
        """What the command prints, on its output and as errors, and its exit status."""
        settings = {"MODELS_FILE": str(self.folder / "models.toml"), **SECRETS, **changes}
        done = await asyncio.to_thread(nanobanana_in_here, self.folder, *arguments, **settings)
        assert not any(secret in done.stdout + done.stderr for secret in SECRETS.values())
        return done.stdout, done.stderr, done.returncode

    @property
    def methods(self) -> Sequence[str]:
        """Of all requests that were sent."""
        return [each.method for each in (*self.google.seen, *self.endpoint.seen)]


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    key = SECRETS["ENDPOINT_KEY"]
    google, endpoint = GeminiStandIn(api_key=key), OpenAIStandIn(api_key=key)
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(each.answer)) for each in (google, endpoint)]
        text = MODELS.format(google=urls[0], endpoint=urls[1], openai_model=OPENAI_MODEL, gemini_model=GEMINI_MODEL)
        (tmp_path / "models.toml").write_text(text)
        yield Deployment(tmp_path, google, endpoint)


async def test_models_check_counts_what_there_is_and_calls_no_provider(deployment: Deployment) -> None:
    assert await deployment.run("models", "check") == ("ok: models: 2, routes: 4, default: picture\n", "", 0)
    assert deployment.methods == []


async def test_models_check_prints_a_line_for_each_mistake_and_ends_with_1(deployment: Deployment) -> None:
    said, errors, status = await deployment.run("models", "check", WRONG_KEY="", HEADER_VALUE="")
    lines = errors.removeprefix("nanobanana: ").splitlines()
    assert lines == [
        "MODELS_FILE, line 25: models.picture.routes.2.key names WRONG_KEY, which is not set.",
        "MODELS_FILE, line 35: models.picture.routes.3.headers names HEADER_VALUE, which is not set.",
    ]
    assert (said, status, deployment.methods) == ("", 1, [])
    for command in (("models", "list"), ("models", "list", "--offline")):
        assert await deployment.run(*command, WRONG_KEY="", HEADER_VALUE="") == ("", errors, 1)


async def test_models_list_offline_prints_every_model_and_calls_no_provider(deployment: Deployment) -> None:
    expected = OFFLINE.format(openai_model=OPENAI_MODEL, gemini_model=GEMINI_MODEL)
    assert await deployment.run("models", "list", "--offline") == (expected, "", 0)
    assert deployment.methods == []


async def test_models_list_says_of_each_route_whether_it_can_be_used_and_buys_nothing(deployment: Deployment) -> None:
    said, errors, status = await deployment.run("models", "list")
    health = dict(line.strip().rsplit(": ", 1) for line in said.splitlines() if line.startswith("  route "))
    assert health == {
        f"route picture/1: openai {OPENAI_MODEL}": "ok",
        f"route closed: gemini {GEMINI_MODEL}": "its key is refused",
        "route dead: openai another": "its base_url refuses the connection",
        "route drawn/1: stub": "ok",
    }
    assert (errors, status, set(deployment.methods)) == ("", 0, {"GET"})


async def test_models_list_without_a_file_shows_the_one_model(deployment: Deployment) -> None:
    said, errors, status = await deployment.run("models", "list", MODELS_FILE="")
    about = ["nano-banana (default): Nano Banana", "  aliases: stub", "  sizes: any that the stub draws"]
    expected = [*about, "  capabilities: edit, mask, references:16", "  route nano-banana: stub: ok"]
    assert (said.splitlines(), errors, status) == (expected, "", 0)


async def test_check_names_each_route_that_cannot_be_used_and_ends_with_1(deployment: Deployment) -> None:
    said, errors, status = await deployment.run("check")
    lines = said.splitlines()
    assert lines[-3:] == [
        "provider: Route closed: its key is refused.",
        "Route dead: its base_url refuses the connection.",
        "stripe: none",
    ]
    assert (errors, status) == ("", 1)
    path = deployment.folder / "models.toml"
    usable = path.read_text().partition("[[models.picture.routes]]\nname")[0]
    path.write_text(usable.replace('"0.011"', '"0.012"'))
    said, errors, status = await deployment.run("check")
    assert (said.splitlines()[-2], errors, status) == ("provider: ok (1 routes)", "", 0)
    assert set(deployment.methods) == {"GET"}
