"""What callers see of money: refusals in the words of each dialect, before anything is drawn; what is left; prices."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx2
import pytest
from app.core.schemas import format_time
from app.core.settings import Settings
from pydantic import SecretStr
from tests.features.dialects import DIALECTS
from tests.features.generate.painted import PROVIDER_KEY
from tests.features.scraped import METRICS_TOKEN
from tests.features.usage.recorded import assert_nothing_recorded, usage
from tests.harness import JSON, Account, Key, generate, running, sign_up
from tests.problems import check_problem
from tests.standins.gemini import image_bytes
from tests.standins.openai import MODEL, OpenAIStandIn, completed, failed, sketch, streamed
from tests.standins.wire import serving

PRICE = 50_000
CREDIT, BUDGET = "x-credit-remaining", "x-budget-remaining"
MODELS = f"""
default = "bought"
currency = "USD"

[models.bought]
price = "0.05"
[[models.bought.routes]]
provider = "openai"
base_url = "{{url}}/v1"
model = "{MODEL}"
key = "OPENAI_API_KEY"
capabilities = ["edit", "references:16", "stream"]

[models.drawn]
price = "0.05"
[[models.drawn.routes]]
provider = "stub"

[models.given]
[[models.given.routes]]
provider = "stub"
"""
_GRANT = """
    with entry as (
      insert into credit_entries (id, account_id, kind, amount, reference, charged_before)
      select 'ent_' || $1, $1, 'grant', $2, 'grant:' || $1, 0 returning account_id, amount
    )
    update balances b set credit = b.credit + e.amount from entry e where b.account_id = e.account_id
"""
REFUSALS = {"test:credit": (402, "insufficient_credit"), "test:budget": (429, "budget_exceeded")}
CASES = [(name, "bought") for name in DIALECTS] + [
    (name, "drawn") for name in ("native", "native asynchronous", "openai bytes", "chat stream", "google")
]


@dataclass(frozen=True)
class Buyer:
    """A new account of a deployment that charges, with a live key."""

    account: Account
    key: Key

    async def money(self) -> tuple[str | None, str, str]:
        """What is available, unless it pays afterwards, what is held, and what was charged."""
        told = await self.account.client.get("/v1/billing", headers=self.account.headers)
        return told.json()["available"], told.json()["held"], told.json()["charged"]

    async def set_cap(self, path: str, **cap: str) -> None:
        answer = await self.account.client.put(path, json=cap, headers=self.account.headers)
        assert answer.status_code == 200, answer.text


@dataclass(frozen=True)
class Shop:
    """A deployment with BILLING=on, and the provider of its default model."""

    client: httpx2.AsyncClient
    provider: OpenAIStandIn

    async def buyer(self, database: asyncpg.Connection, *, credit: int = 0) -> Buyer:
        account = await sign_up(self.client)
        if credit:
            await database.execute(_GRANT, account.account_id, credit)
        return Buyer(account, await account.create_key())


@pytest.fixture(scope="module")
async def shop(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    provider, path = OpenAIStandIn(api_key=PROVIDER_KEY), tmp_path_factory.mktemp("shop") / "models.toml"
    async with serving(provider.answer) as url:
        path.write_text(MODELS.format(url=url))
        changes = {
            "billing": "on",
            "models_file": path,
            "openai_api_key": SecretStr(PROVIDER_KEY),
            "metrics_token": METRICS_TOKEN,
        }
        async with running(Settings(**{**settings.model_dump(), **changes})) as client:
            yield Shop(client, provider)


def check_refusal(answer: httpx2.Response, status: int, code: str) -> None:
    """A refusal for money, in the words of its dialect."""
    more = {"cap", "ends_at"} if code == "budget_exceeded" else set()
    check_problem(answer, status, code, more=more)
    assert answer.headers["x-should-retry"] == "false"
    assert {CREDIT, BUDGET} & set(answer.headers) == set()
    error: JSON = answer.json()["error"]
    assert error.get("type", "insufficient_quota") == "insufficient_quota", "OpenAI's clients know that"


async def test_each_route_that_makes_images_is_in_the_table(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    answers = [(path, each["responses"].get("402", {})) for path, methods in paths.items() for each in methods.values()]
    refusing = {path for path, answer in answers if "insufficient_credit" in answer.get("description", "")}
    for path in refusing:
        for status, answer in paths[path]["post"]["responses"].items():
            shown = {name.lower() for name in answer.get("headers", ())}
            assert shown == ({CREDIT, BUDGET} if status in {"200", "202"} else set()), (path, status)
    assert refusing == {each.path.partition("?")[0] for each in DIALECTS.values()}


@pytest.mark.parametrize("prompt", REFUSALS)
@pytest.mark.parametrize("name", DIALECTS)
async def test_a_test_key_rehearses_each_refusal_in_each_dialect(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, name: str, prompt: str
) -> None:
    key = await account.create_key(environment="test")
    check_refusal(await DIALECTS[name].ask(client, key, prompt=prompt), *REFUSALS[prompt])
    await assert_nothing_recorded(database, key)


@pytest.mark.parametrize(("name", "model"), CASES)
async def test_an_account_gets_exactly_the_images_that_its_credit_pays_for(
    shop: Shop, database: asyncpg.Connection, name: str, model: str
) -> None:
    dialect, buyer = DIALECTS[name], await shop.buyer(database, credit=2 * PRICE)
    calls, good = len(shop.provider.seen), 202 if dialect.is_asynchronous else 200
    first = await dialect.ask(shop.client, buyer.key, model=model, once="first")
    assert (first.status_code, first.headers[CREDIT]) == (good, "0.05"), first.text
    others = await asyncio.gather(*(dialect.ask(shop.client, buyer.key, model=model) for _ in range(3)))
    assert Counter((each.status_code, each.headers.get(CREDIT)) for each in others) == {(good, "0"): 1, (402, None): 2}
    for answer in others:
        if answer.status_code != good:
            check_refusal(answer, 402, "insufficient_credit")
    is_bought = model == "bought" and not dialect.is_asynchronous
    assert len(shop.provider.seen) - calls == (2 if is_bought else 0)
    again = await dialect.ask(shop.client, buyer.key, model=model, once="first")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (good, "true")
    assert CREDIT not in again.headers
    held, charged = ("0.1", "0") if dialect.is_asynchronous else ("0", "0.1")
    assert await buyer.money() == ("0", held, charged)
    rows = await database.fetch("select list_price, price from generations where key_id = $1", buyer.key.id)
    assert [tuple(row) for row in rows] == [(PRICE, PRICE)] * 2
    await usage(database, buyer.key)  # which must equal the rows
    counted = (await shop.client.get("/v1/usage?group_by=key", headers=buyer.account.headers)).json()
    assert [each["amount"] for each in counted] == ([] if dialect.is_asynchronous else [charged])


async def test_a_stream_says_what_is_left_before_its_image_is_drawn(shop: Shop, database: asyncpg.Connection) -> None:
    buyer, gate = await shop.buyer(database, credit=PRICE), asyncio.Event()
    image = image_bytes(1024, 1024)
    shop.provider.faults.append(streamed(sketch(0, image_bytes(64, 64)), later=(gate, completed(image))))
    body = {"prompt": "A cute banana", "stream": True, "partial_images": 1}
    asked = shop.client.stream("POST", "/v1/images/generations", json=body, headers=buyer.key.headers)
    async with asked as answer:
        assert answer.headers[CREDIT] == "0"
        assert await buyer.money() == ("0", "0.05", "0")
        gate.set()
        assert b"image_generation.completed" in await answer.aread()
    assert await buyer.money() == ("0", "0", "0.05")


async def test_of_several_images_those_that_are_delivered_are_charged(shop: Shop, database: asyncpg.Connection) -> None:
    buyer = await shop.buyer(database, credit=3 * PRICE)
    shop.provider.faults.append(failed(500, "server_error"))
    body = {"prompt": "A cute banana", "n": 3}
    made = await shop.client.post("/v1/images/generations", json=body, headers=buyer.key.headers)
    assert (made.status_code, len(made.json()["errors"]), made.headers[CREDIT]) == (200, 1, "0"), made.text
    assert await buyer.money() == ("0.05", "0", "0.1")
    too_many = await shop.client.post("/v1/images/generations", json=body, headers=buyer.key.headers)
    check_refusal(too_many, 402, "insufficient_credit")
    assert (await generate(shop.client, buyer.key)).headers[CREDIT] == "0"


async def test_what_is_cancelled_or_refused_before_it_waits_costs_nothing_and_keeps_nothing(
    shop: Shop, database: asyncpg.Connection
) -> None:
    buyer, dialect = await shop.buyer(database, credit=PRICE), DIALECTS["native edit asynchronous"]
    accepted = await dialect.ask(shop.client, buyer.key)
    assert (accepted.status_code, await buyer.money()) == (202, ("0", "0.05", "0"))
    check_refusal(await dialect.ask(shop.client, buyer.key), 402, "insufficient_credit")
    [_] = (await shop.client.get("/v1/uploads", headers=buyer.key.headers)).json()  # the image of the first
    path = f"{accepted.headers['location']}/cancel"
    cancelled = await shop.client.post(path, headers=buyer.key.headers)
    assert (cancelled.json()["status"], await buyer.money()) == ("cancelled", ("0.05", "0", "0"))


async def test_an_image_that_cannot_be_drawn_costs_nothing(
    shop: Shop, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("app.providers.stub.draw_png", fail)
    buyer = await shop.buyer(database, credit=PRICE)
    for name in ("openai bytes", "openai stream", "chat"):
        answer = await DIALECTS[name].ask(shop.client, buyer.key, model="drawn")
        assert answer.status_code == 500
        assert await buyer.money() == ("0.05", "0", "0")


async def test_a_cap_says_whose_it_is_and_when_it_ends_and_credit_comes_first(
    shop: Shop, database: asyncpg.Connection
) -> None:
    buyer = await shop.buyer(database, credit=PRICE)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    month = (midnight - timedelta(days=1)).replace(day=1) + timedelta(days=32)
    await buyer.set_cap(f"/v1/keys/{buyer.key.id}/cap", amount="0.05", period="day")
    made = await generate(shop.client, buyer.key)
    assert (made.status_code, made.headers[CREDIT], made.headers[BUDGET]) == (200, "0", "0")
    check_refusal(await generate(shop.client, buyer.key), 402, "insufficient_credit")
    await database.execute("update balances set is_postpaid = true where account_id = $1", buyer.account.account_id)
    of_key = await generate(shop.client, buyer.key)
    check_refusal(of_key, 429, "budget_exceeded")
    assert (of_key.json()["cap"], of_key.json()["ends_at"]) == ("key", format_time(midnight))
    other = await buyer.account.create_key()
    await buyer.set_cap("/v1/billing/cap", amount="0.1")
    made = await generate(shop.client, other)
    assert (made.status_code, made.headers.get(CREDIT), made.headers[BUDGET]) == (200, None, "0")
    of_account = await generate(shop.client, other)
    check_refusal(of_account, 429, "budget_exceeded")
    assert (of_account.json()["cap"], of_account.json()["ends_at"]) == ("account", format_time(month.replace(day=1)))


async def test_what_has_no_price_needs_no_credit(shop: Shop, database: asyncpg.Connection) -> None:
    buyer = await shop.buyer(database)
    test_key = await buyer.account.create_key(environment="test")
    for key, model in ((test_key, "bought"), (test_key, "drawn"), (buyer.key, "given")):
        answer = await generate(shop.client, key, model=model)
        assert (answer.status_code, answer.json()["price"]) == (200, "0")
        assert {CREDIT, BUDGET} & set(answer.headers) == set()
    assert await buyer.money() == ("0", "0", "0")


async def test_the_price_of_an_image_is_what_was_charged(shop: Shop, database: asyncpg.Connection) -> None:
    buyer = await shop.buyer(database, credit=PRICE)
    made = (await generate(shop.client, buyer.key)).json()
    assert made["price"] == "0.05"
    path = f"/v1/generations/{made['id']}"
    assert (await shop.client.get(path, headers=buyer.key.headers)).json()["price"] == "0.05"
    await database.execute("update generations set price = 0 where id = $1", made["id"])  # as before billing was on
    assert (await shop.client.get(path, headers=buyer.key.headers)).json()["price"] == "0"
    [listed] = (await shop.client.get("/v1/generations", headers=buyer.key.headers)).json()
    assert listed["price"] == "0"


async def test_the_metrics_say_that_billing_is_on(shop: Shop) -> None:
    metrics = await shop.client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    assert "\nnanobanana_billing_on 1.0\n" in metrics.text
