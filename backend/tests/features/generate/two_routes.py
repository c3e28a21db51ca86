"""The platform with models of two routes: Gemini first, an OpenAI-compatible endpoint behind it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx2
from pydantic import SecretStr
from tests.conftest import Start
from tests.features.generate.painted import PROVIDER_KEY
from tests.harness import JSON, Account, Key, looks, sign_up
from tests.standins.gemini import MODEL, GeminiStandIn
from tests.standins.openai import MODEL as SECOND_MODEL
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import serving

PRICE, FIRST_COST, SECOND_COST = 50_000, 39_000, 42_000

_MODEL = """
[models."{name}"]
price = "0.05"
{of_model}

[[models."{name}".routes]]
provider = "gemini"
base_url = "{first_url}"
model = "{first_model}"
key = "GEMINI_API_KEY"
cost = "0.039"
{of_first}

[[models."{name}".routes]]
order = 2
provider = "openai"
base_url = "{second_url}/v1"
model = "{second_model}"
key = "OPENAI_API_KEY"
cost = "0.042"
{of_second}
"""


@dataclass(frozen=True)
class ModelOfTwo:
    """What a model of two routes has besides: lines of TOML, and where its first route leads instead."""

    of_model: str = ""
    of_first: str = ""
    of_second: str = ""
    first_url: str | None = None


@dataclass(frozen=True)
class TwoRoutes:
    """The platform, its providers, and a live key of a new account."""

    client: httpx2.AsyncClient
    first: GeminiStandIn
    second: OpenAIStandIn
    account: Account
    key: Key

    async def generate(self, model: str = "picture", **more: object) -> httpx2.Response:
        """The answer to a request for an image of this model."""
        body: JSON = {"prompt": "A cute banana", "model": model, **more}
        return await self.client.post("/v1/generate", json=body, headers=self.key.headers)

    @property
    def calls(self) -> tuple[int, int]:
        """How often each provider was called since the last time that this was asked."""
        counts = len(self.first.seen), len(self.second.seen)
        self.first.seen.clear()
        self.second.seen.clear()
        return counts

    async def first_called(self, count: int = 1) -> None:
        """Returns once the first provider has been called that often."""
        await _called(self.first, count)

    async def second_called(self) -> None:
        """Returns once the second provider has been called."""
        await _called(self.second, 1)

    async def last_row(self, database: asyncpg.Connection) -> asyncpg.Record:
        """The key's newest generation."""
        query = "select * from generations where key_id = $1 order by id desc limit 1"
        [row] = await database.fetch(query, self.key.id)
        return row


async def _called(provider: GeminiStandIn | OpenAIStandIn, count: int) -> None:
    for _ in looks():
        if len(provider.seen) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is not called")


@asynccontextmanager
async def two_routes(
    start: Start, folder: Path, models: Mapping[str, ModelOfTwo] | None = None, **settings: object
) -> AsyncIterator[TwoRoutes]:
    """An application with these models, by default one named `picture`."""
    first, second = GeminiStandIn(api_key=PROVIDER_KEY), OpenAIStandIn(api_key=PROVIDER_KEY)
    models = models or {"picture": ModelOfTwo()}
    async with serving(first.answer) as first_url, serving(second.answer) as second_url:
        texts = [
            _MODEL.format(
                name=name,
                of_model=model.of_model,
                of_first=model.of_first,
                of_second=model.of_second,
                first_url=model.first_url or first_url,
                first_model=MODEL,
                second_url=second_url,
                second_model=SECOND_MODEL,
            )
            for name, model in models.items()
        ]
        path = folder / "models.toml"
        path.write_text(f'default = "{next(iter(models))}"\ncurrency = "USD"\n{"".join(texts)}')
        keys = {"gemini_api_key": SecretStr(PROVIDER_KEY), "openai_api_key": SecretStr(PROVIDER_KEY)}
        client = await start(models_file=path, **{**keys, **settings})
        account = await sign_up(client)
        yield TwoRoutes(client, first, second, account, await account.create_key())
