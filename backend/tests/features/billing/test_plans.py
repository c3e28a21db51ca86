"""Plans over HTTP: what is offered, and that an account's plan bounds the models of its keys in every dialect."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx2
import pytest
from app.core.settings import Settings
from app.deployment import find_gone_plans
from tests.conftest import Start
from tests.features.sent_images import data_url, png
from tests.harness import JSON, Account, Key, sign_up
from tests.problems import check_problem
from tests.test_cli import nanobanana_in_here

MODELS = """
default = "apple"
currency = "EUR"

[models.apple]
[[models.apple.routes]]
provider = "stub"

[models.banana]
aliases = ["yellow"]
[[models.banana.routes]]
provider = "stub"

[plans.starter]
title = "Starter"
price = "20"
allowance = "25"
pays = "afterwards"
cap = "100.5"
limit = "600000/second"
limit_per_key = "60000/second"
concurrency_per_key = 5
models = ["banana"]
weight = 4

[plans.free]

[top_ups]
amounts = ["5", "50"]
least = "10"
most = "1000"
"""
PROMPT = "A cute banana"
_PART: JSON = {"contents": [{"parts": [{"text": PROMPT}]}]}
REQUESTS: Mapping[str, tuple[str, JSON]] = {
    "ours": ("/v1/generate", {"prompt": PROMPT, "model": "{model}"}),
    "with an image": ("/v1/generate", {"prompt": PROMPT, "model": "{model}", "images": [data_url(png())]}),
    "asynchronous": ("/v1/generate", {"prompt": PROMPT, "model": "{model}", "async": True}),
    "OpenAI's": ("/v1/images/generations", {"prompt": PROMPT, "model": "{model}"}),
    "a chat": (
        "/v1/chat/completions",
        {"model": "{model}", "messages": [{"role": "user", "content": PROMPT}], "modalities": ["image"]},
    ),
    "a chat of text": ("/v1/chat/completions", {"model": "{model}", "messages": [{"role": "user", "content": "hi"}]}),
    "Google's": ("/v1beta/models/{model}:generateContent", _PART),
    "Google's prediction": ("/v1beta/models/{model}:predict", {"instances": [{"prompt": PROMPT}]}),
}
SENTENCE = "There is no such model in the account's plan; use banana"


@dataclass(frozen=True)
class Shop:
    """A deployment with plans, and a new account."""

    client: httpx2.AsyncClient
    account: Account
    folder: Path
    database_url: str

    async def plan(self, *arguments: str) -> str:
        """What `nanobanana billing plan` prints for the account."""
        done = await asyncio.to_thread(
            nanobanana_in_here,
            self.folder,
            *("billing", "plan", self.account.email, *arguments),
            DATABASE_URL=self.database_url,
            MODELS_FILE=str(self.folder / "models.toml"),
        )
        return done.stdout + done.stderr

    async def ask(self, key: Key, request: tuple[str, JSON], model: str, **headers: str) -> httpx2.Response:
        path, body = request
        named = {**body, "model": model} if "model" in body else body
        return await self.client.post(path.format(model=model), json=named, headers={**key.headers, **headers})

    async def listed(self, key: Key) -> Sequence[str]:
        """The names of all models in both lists."""
        ours = (await self.client.get("/v1/models", headers=key.headers)).json()["data"]
        googles = (await self.client.get("/v1beta/models", headers=key.headers)).json()["models"]
        return [*(each["id"] for each in ours), *(each["name"] for each in googles)]


@pytest.fixture
async def shop(start: Start, tmp_path: Path, database_url: str) -> Shop:
    (tmp_path / "models.toml").write_text(MODELS)
    client = await start(models_file=tmp_path / "models.toml")
    return Shop(client, await sign_up(client), tmp_path, database_url)


async def test_what_is_offered_can_be_read_without_a_key(shop: Shop) -> None:
    nothing = dict.fromkeys(("cap", "limit", "limit_per_key", "concurrency_per_key", "models"))
    assert (await shop.client.get("/v1/plans")).json() == {
        "currency": "EUR",
        "plans": [
            {
                "name": "starter",
                "title": "Starter",
                "price": "20",
                "allowance": "25",
                "pays": "afterwards",
                "cap": "100.5",
                "limit": "600000/second",
                "limit_per_key": "60000/second",
                "concurrency_per_key": 5,
                "models": ["banana"],
                "weight": 4,
            },
            {
                "name": "free",
                "title": "free",
                "price": "0",
                "allowance": "0",
                "pays": "in_advance",
                **nothing,
                "weight": 1,
            },
        ],
        "top_ups": {"amounts": ["5", "50"], "least": "10", "most": "1000"},
    }


async def test_a_plan_bounds_the_models_of_every_dialect_from_the_next_commit_on(shop: Shop) -> None:
    keys = [await shop.account.create_key(environment=each) for each in ("live", "test")]
    for key in keys:
        assert (await shop.ask(key, REQUESTS["ours"], "apple", **{"idempotency-key": "before"})).status_code == 200
    assert "has the plan starter now" in await shop.plan("starter")
    for key in keys:
        check_problem(await shop.ask(key, REQUESTS["ours"], "apple"), 404, "model_not_found")  # its caller is cached
        replay = await shop.ask(key, REQUESTS["ours"], "apple", **{"idempotency-key": "before"})
        assert (replay.status_code, replay.headers["idempotent-replayed"]) == (200, "true")
        for name, request in REQUESTS.items():
            refused = await shop.ask(key, request, "apple")
            check_problem(refused, 404, "model_not_found")
            assert SENTENCE in refused.text, name
            assert "leave model out" not in refused.text
            for model in ("banana", "yellow"):
                assert (await shop.ask(key, request, model)).status_code in {200, 202}, (name, model)
        assert await shop.listed(key) == ["banana", "models/banana", "models/yellow"]
        for path in ("/v1/models/apple", "/v1beta/models/apple", "/v1beta/models/gemini-2.5-flash-image"):
            check_problem(await shop.client.get(path, headers=key.headers), 404, "model_not_found")
    assert "has no plan now" in await shop.plan("none")
    for key in keys:
        assert (await shop.ask(key, REQUESTS["ours"], "apple")).status_code == 200
        assert "apple" in await shop.listed(key)


async def test_an_operator_sets_a_plan_with_its_day_and_spares_what_is_paid_at_stripe(
    shop: Shop, database: asyncpg.Connection, settings: Settings
) -> None:
    row = "select plan, status, anchor_day, stripe_id from subscriptions where account_id = $1"

    async def subscription() -> tuple[object, ...]:
        return tuple(await database.fetchrow(row, shop.account.account_id) or ())

    assert "MODELS_FILE has no plan other: name one of starter, free." in await shop.plan("other")
    await shop.plan("starter", "--day", "17")
    assert await subscription() == ("starter", "active", 17, None)
    balance = (await shop.client.get("/v1/billing", headers=shop.account.headers)).json()
    assert {name: balance[name] for name in ("mode", "allowance", "cap", "plan")} == {
        "mode": "postpaid",
        "allowance": "25",
        "cap": "100.5",
        "plan": "starter",
    }
    [gone] = await asyncio.to_thread(find_gone_plans, settings)  # which have no file of models
    assert "starter" in gone
    assert gone.endswith("They go on as they were.")
    await shop.plan("free")
    assert await subscription() == ("free", "active", 17, None)
    paid = "update subscriptions set stripe_id = 'sub_' || account_id where account_id = $1"
    await database.execute(paid, shop.account.account_id)
    assert "by a subscription at Stripe (sub_" in await shop.plan("none")
    assert (await subscription())[1] == "active"
    await shop.plan("none", "--force")
    assert await subscription() == ("free", "cancelled", 17, None)
