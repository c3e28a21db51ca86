"""The platform with a Gemini behind it: the stand-in, the application, and a key that costs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
from pydantic import SecretStr
from tests.conftest import Start
from tests.harness import Account, Key, sign_up
from tests.standins.gemini import GeminiStandIn
from tests.standins.wire import serving

PROVIDER_KEY = "canary-key-of-the-provider-0123456789"


@dataclass(frozen=True)
class Painted:
    """What a test of the paid path needs."""

    client: httpx2.AsyncClient
    gemini: GeminiStandIn
    account: Account
    key: Key

    async def asked(self, count: int = 1) -> None:
        """Returns once Gemini has been asked that often."""
        for _ in range(1000):
            if len(self.gemini.seen) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it is not asked")


@asynccontextmanager
async def painted(start: Start, **settings: object) -> AsyncIterator[Painted]:
    """An application whose live keys draw with Gemini, and a live key of a new account."""
    gemini = GeminiStandIn(api_key=PROVIDER_KEY)
    async with serving(gemini.answer) as url:
        client = await start(
            image_provider="gemini", gemini_api_key=SecretStr(PROVIDER_KEY), gemini_base_url=url, **settings
        )
        account = await sign_up(client)
        yield Painted(client, gemini, account, await account.create_key())
