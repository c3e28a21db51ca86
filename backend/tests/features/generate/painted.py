"""The platform with a provider behind it: the stand-in, the application, and a key that costs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
from pydantic import SecretStr
from tests.conftest import Start
from tests.harness import Account, Key, looks, sign_up
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import serving

PROVIDER_KEY = "canary-key-of-the-provider-0123456789"


@dataclass(frozen=True)
class Painted:
    """What a test of the paid path needs."""

    client: httpx2.AsyncClient
    provider: GeminiStandIn | OpenAIStandIn
    account: Account
    key: Key

    async def asked(self, count: int = 1) -> None:
        """Returns once the provider has been asked that often."""
        for _ in looks():
            if len(self.provider.seen) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it is not asked")


@asynccontextmanager
async def painted(start: Start, **settings: object) -> AsyncIterator[Painted]:
    """An application whose live keys draw with Gemini, and a live key of a new account."""
    gemini = GeminiStandIn(api_key=PROVIDER_KEY)
    async with serving(gemini.answer) as url:
        chosen = {"image_provider": "gemini", "gemini_api_key": SecretStr(PROVIDER_KEY), "gemini_base_url": url}
        client = await start(**{**chosen, **settings})
        yield await _used(client, gemini)


@asynccontextmanager
async def painted_by_openai(start: Start, **settings: object) -> AsyncIterator[Painted]:
    """The same with an OpenAI-compatible endpoint."""
    endpoint = OpenAIStandIn(api_key=PROVIDER_KEY)
    async with serving(endpoint.answer) as url:
        chosen = {"image_provider": "openai", "openai_api_key": SecretStr(PROVIDER_KEY), "openai_base_url": f"{url}/v1"}
        client = await start(**{**chosen, **settings})
        yield await _used(client, endpoint)


async def _used(client: httpx2.AsyncClient, provider: GeminiStandIn | OpenAIStandIn) -> Painted:
    account = await sign_up(client)
    return Painted(client, provider, account, await account.create_key())
