"""Models over HTTP: what callers read of them, and that the price of an image is the same wherever it is told."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx2
import pytest
from pydantic import SecretStr
from tests.conftest import Start
from tests.features.generate.painted import PROVIDER_KEY
from tests.features.sent_images import data_url, png
from tests.harness import JSON, Account, Key, sign_up
from tests.problems import check_problem
from tests.standins.openai import MODEL, OpenAIStandIn
from tests.standins.wire import serving

_DRAWN = f"""
provider = "openai"
base_url = "{{url}}/v1"
model = "{MODEL}"
key = "OPENAI_API_KEY"
sizes = ["1024x1024", "1536x1024"]
capabilities = ["quality"]
"""
MODELS = f"""
default = "flat"
currency = "USD"

[models.sized]
price = {{{{ "1K" = "0.02", "2K" = "0.100000" }}}}
[[models.sized.routes]]
provider = "stub"

[models.flat]
title = "Flat"
aliases = ["imagen-4"]
price = "0.050"
input_price = "0.0020"
[[models.flat.routes]]
provider = "stub"

[models."by/quality"]
price = {{{{ low = "0.011", high = "0.167" }}}}
[[models."by/quality".routes]]{_DRAWN}
[models.both]
price = {{{{ "1K/low" = "0.000001", "1K/high" = "12.5" }}}}
[[models.both.routes]]{_DRAWN}
"""
IMAGES = (
    ("flat", "64x64", "auto", "0.054", 2),
    ("imagen-4", "2048x2048", "high", "0.05", 0),
    ("sized", "1264x1264", "auto", "0.02", 1),
    ("sized", "1265x1265", "auto", "0.1", 0),
    ("by/quality", "1024x1024", "high", "0.167", 0),
    ("by/quality", "1024x1024", "auto", "0.011", 0),
    ("both", "1024x1024", "low", "0.000001", 0),
    ("both", "1536x1024", "high", "12.5", 0),
)
"""What is asked for, the price of it, and how many images go in."""
SUMS = {"flat": "0.104", "sized": "0.12", "by/quality": "0.178", "both": "12.500001"}


@dataclass(frozen=True)
class Shop:
    """A deployment whose models have a price of each form, and a new account."""

    client: httpx2.AsyncClient
    account: Account

    async def generate(self, key: Key, model: str, size: str, quality: str, *, images: int = 0) -> httpx2.Response:
        body: JSON = {"prompt": "A cute banana", "model": model, "size": size, "quality": quality}
        if images:
            body["images"] = [data_url(png())] * images
        return await self.client.post("/v1/generate", json=body, headers=key.headers)


@pytest.fixture
async def shop(start: Start, tmp_path: Path) -> AsyncIterator[Shop]:
    provider = OpenAIStandIn(api_key=PROVIDER_KEY)
    async with serving(provider.answer) as url:
        (tmp_path / "models.toml").write_text(MODELS.format(url=url))
        client = await start(models_file=tmp_path / "models.toml", openai_api_key=SecretStr(PROVIDER_KEY))
        yield Shop(client, await sign_up(client))


async def test_the_list_has_each_price_in_its_form_and_the_default_model_first(shop: Shop) -> None:
    live, test = [await shop.account.create_key(environment=each) for each in ("live", "test")]
    answer = await shop.client.get("/v1/models", headers=live.headers)
    assert answer.status_code == 200
    models = answer.json()["data"]
    assert {model["id"]: model["price"] for model in models} == {
        "flat": "0.05",
        "sized": {"1K": "0.02", "2K": "0.1"},
        "by/quality": {"low": "0.011", "high": "0.167"},
        "both": {"1K/low": "0.000001", "1K/high": "12.5"},
    }
    assert [(model["id"], model["is_default"]) for model in models][:2] == [("flat", True), ("sized", False)]
    assert {model["currency"] for model in models} == {"USD"}
    assert [model["input_price"] for model in models] == ["0.002", "0", "0", "0"]
    assert (await shop.client.get("/v1/models", headers=test.headers)).json() == answer.json()
    for name in ("flat", "imagen-4"):
        assert (await shop.client.get(f"/v1/models/{name}", headers=live.headers)).json() == models[0]
    assert (await shop.client.get("/v1/models/by/quality", headers=live.headers)).json()["id"] == "by/quality"
    check_problem(await shop.client.get("/v1/models/another", headers=live.headers), 404, "model_not_found")


async def test_nothing_of_a_route_is_in_the_list(shop: Shop) -> None:
    key = await shop.account.create_key()
    said = (await shop.client.get("/v1/models", headers=key.headers)).text
    assert not any(word in said for word in ("127.0.0.1", MODEL, "openai", "cost", "OPENAI_API_KEY", PROVIDER_KEY))


async def test_the_price_of_an_image_is_the_same_in_its_answer_its_row_and_the_usage(
    shop: Shop, database: asyncpg.Connection
) -> None:
    live, test = [await shop.account.create_key(environment=each) for each in ("live", "test")]
    for key, is_charged in ((live, True), (test, False)):
        for model, size, quality, price, images in IMAGES:
            answer = await shop.generate(key, model, size, quality, images=images)
            assert answer.status_code == 200, answer.text
            expected = price if is_charged else "0"
            assert (answer.json()["price"], answer.json()["currency"]) == (expected, "USD")
            row = (
                "select list_price::numeric / 1000000 = $2::text::numeric and price = 0 from generations where id = $1"
            )
            assert await database.fetchval(row, answer.json()["id"], expected)
            one = await shop.client.get(f"/v1/generations/{answer.json()['id']}", headers=key.headers)
            assert one.json()["price"] == expected
    for key, sums in ((live, SUMS), (test, dict.fromkeys(SUMS, "0"))):
        parameters = {"group_by": "model", "key_id": key.id}
        usage = await shop.client.get("/v1/usage", params=parameters, headers=shop.account.headers)
        assert {row["model"]: row["list_amount"] for row in usage.json()} == sums
        assert {(row["images"], row["currency"]) for row in usage.json()} == {(2, "USD")}
    [day] = (await shop.client.get("/v1/usage?group_by=day", headers=shop.account.headers)).json()
    assert (day["images"], day["list_amount"]) == (2 * len(IMAGES), "12.902001")


async def test_a_quality_without_a_price_is_refused_and_a_price_is_0_where_there_is_no_file(
    shop: Shop, client: httpx2.AsyncClient
) -> None:
    key = await shop.account.create_key()
    refused = await shop.generate(key, "both", "1024x1024", "medium")
    check_problem(refused, 422, "validation_error", more=["errors"])
    assert refused.json()["errors"] == [{"pointer": "#/quality", "detail": "Must be one of auto, low, high"}]
    plain = await (await sign_up(client)).create_key()
    [model] = (await client.get("/v1/models", headers=plain.headers)).json()["data"]
    assert (model["id"], model["price"], model["input_price"], model["currency"]) == ("nano-banana", "0", "0", None)
    answer = (await client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=plain.headers)).json()
    assert (answer["price"], answer["currency"]) == ("0", None)
