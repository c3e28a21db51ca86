"""One platform, with a stand-in of a provider behind its live keys, and the programs that drive the clients."""

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from app.core.settings import Settings
from pydantic import SecretStr
from tests.clients import environments, report
from tests.clients.calls import WITH_MASKS, Client
from tests.clients.report import Results
from tests.features.generate.painted import PROVIDER_KEY
from tests.harness import PATIENCE_SECONDS, Account, running, sign_up
from tests.standins.gemini import MODEL, GeminiStandIn
from tests.standins.wire import serving

Ask = Callable[..., Awaitable[dict[str, Any]]]

_SCRIPTS = Path(__file__).parent / "scripts"
_LINE_BYTES = 64 * 1024 * 1024  # images are in it
_MODELS = f"""
default = "nano-banana"

[[models.nano-banana.routes]]
provider = "gemini"
base_url = "{{url}}"
model = "{MODEL}"
key = "GEMINI_API_KEY"
capabilities = ["edit", "references:3"]

[[models.{WITH_MASKS}.routes]]
provider = "stub"
"""
_ENVIRONMENT = {"PATH": os.defpath, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # litellm would load its prices at import


@dataclass
class Platform:
    """The platform at its own PUBLIC_URL. Its live keys draw with the provider, its test keys with the stub. Streams
    are kept alive every few milliseconds until there is an image: each client has to read over that.
    """

    client: httpx2.AsyncClient
    provider: GeminiStandIn
    _accounts: dict[str, Account] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    async def account_of(self, client: Client) -> Account:
        """An account for each client: one has only so many keys."""
        if client.name not in self._accounts:
            self._accounts[client.name] = await sign_up(self.client)
        return self._accounts[client.name]


@pytest.fixture(scope="session")
async def platform(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    provider = GeminiStandIn(api_key=PROVIDER_KEY)
    async with serving(provider.answer) as url:
        folder = tmp_path_factory.mktemp("clients")
        (folder / "models.toml").write_text(_MODELS.format(url=url))
        changes = {
            "models_file": folder / "models.toml",
            "gemini_api_key": SecretStr(PROVIDER_KEY),
            "data_dir": folder,
        }
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("app.features.watched.KEEP_ALIVE_SECONDS", 0.005)
            async with running(Settings(**{**settings.model_dump(), **changes}), at_its_own_url=True) as client:
                yield Platform(client, provider)


@pytest.fixture(scope="session")
def results() -> Iterator[Results]:
    """What the users got. It is written into docs/clients.md when it is complete."""
    results: Results = {}
    yield results
    report.write(results)


@pytest.fixture(scope="session")
async def ask(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ask]:
    """Has a client make a call, by its script's program, which is started once: what its user gets."""
    programs: dict[str, Process] = {}
    home = tmp_path_factory.mktemp("home")

    async def ask_one(client: Client, **call: Any) -> dict[str, Any]:
        if client.name not in programs:
            programs[client.name] = await _start(client, home)
        program = programs[client.name]
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(json.dumps(call).encode() + b"\n")
        line = await asyncio.wait_for(program.stdout.readline(), PATIENCE_SECONDS)
        assert line, "the program has ended; its standard error says why"
        answer: dict[str, Any] = json.loads(line)
        return answer

    yield ask_one
    for program in programs.values():
        assert program.stdin is not None
        program.stdin.close()
        await program.wait()


async def _start(client: Client, home: Path) -> Process:
    command = [environments.python(client.environment), _SCRIPTS / client.script]
    if client.script.endswith(".mjs"):
        node = environments.node()
        if node is None:
            pytest.skip("there is no Node here")
        folder = environments.folder_for_scripts(client.environment)
        for script in _SCRIPTS.glob("*.mjs"):
            shutil.copy(script, folder)
        command = [node, folder / client.script]
    assert command[0].exists(), "make test-clients installs the clients"
    environment = {**_ENVIRONMENT, "HOME": str(home)}
    return await asyncio.create_subprocess_exec(*command, env=environment, stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES)
