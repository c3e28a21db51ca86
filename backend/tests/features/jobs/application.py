"""An application that draws asynchronously, and a caller of it."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import httpx2
from tests.harness import JSON, Account, Key, looks
from tests.standins.gemini import image_bytes
from tests.standins.openai import OpenAIStandIn, in_place
from tests.standins.wire import Reply

ASYNC = {"Prefer": "respond-async"}
BODY = {"prompt": "A cute banana"}
IMAGE = image_bytes(1024, 1024)
DATA_URL = f"data:image/png;base64,{base64.b64encode(image_bytes(64, 64)).decode()}"
NATIVE, OPENAI, EDITS = "/v1/generate", "/v1/images/generations", "/v1/images/edits"
BODIES: dict[str, JSON] = {NATIVE: BODY, OPENAI: BODY, EDITS: {**BODY, "images": [{"image_url": DATA_URL}]}}
"""What each route that answers asynchronously is asked for."""
WAITING_CALLERS_PER_ACCOUNT, PER_ACCOUNT, WAITING_MAX = 3, 2, 4


class Application(NamedTuple):
    """The running application, and its provider."""

    client: httpx2.AsyncClient
    provider: OpenAIStandIn


@dataclass(frozen=True)
class Jobs:
    """The application, its provider, and a caller."""

    client: httpx2.AsyncClient
    provider: OpenAIStandIn
    account: Account
    key: Key
    _gates: list[asyncio.Event] = field(default_factory=list)

    def hold(self, reply: Reply | None = None) -> asyncio.Event:
        """The provider's next reply is sent when the result is set, or the test ends."""
        gate = asyncio.Event()
        self._gates.append(gate)
        self.provider.faults.append(replace(reply or in_place(IMAGE), gate=gate))
        return gate

    async def ask(self, route: str = NATIVE, *, headers: Mapping[str, str] = ASYNC, **more: Any) -> httpx2.Response:
        """Asks for an image, with these members of the body more."""
        return await self.client.post(route, json={**BODIES[route], **more}, headers={**self.key.headers, **headers})

    async def accepted(self, route: str = NATIVE, **more: Any) -> str:
        """The path of a request that was accepted."""
        answer = await self.ask(route, **more)
        assert answer.status_code == 202, answer.text
        path: str = answer.headers["location"]
        return path

    async def show(self, path: str, *, key: Key | None = None) -> httpx2.Response:
        return await self.client.get(path, headers=(key or self.key).headers)

    async def until(self, path: str, status: str) -> JSON:
        """The generation, once it has this status."""
        for _ in looks():
            shown: JSON = (await self.show(path)).json()
            if shown.get("status") == status:
                return shown
            await asyncio.sleep(0.01)
        raise AssertionError(f"it is not {status}")

    async def asked(self) -> None:
        """Returns once the provider was asked for everything that `hold` holds."""
        for _ in looks():
            if not self.provider.faults:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it is not asked")

    async def fill(self) -> list[str]:
        """Has as many drawn as the account may: what it asks for from now on waits. The paths of what is drawn."""
        paths = []
        for _ in range(PER_ACCOUNT):
            self.hold()
            paths.append(await self.accepted())
        await self.asked()
        return paths

    def let_draw(self) -> None:
        """Nothing is held any more."""
        self.provider.faults.clear()
        for gate in self._gates:
            gate.set()

    async def finish(self) -> None:
        """Returns once everything was drawn that was asked for."""
        self.let_draw()
        for _ in looks():
            unfinished = await self.show("/v1/generations?status=queued,processing")
            if unfinished.json() == []:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("something is still drawn")
