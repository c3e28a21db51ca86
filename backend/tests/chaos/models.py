"""The models of the fault tests: one that the stub draws, and two of two routes, whose first fails in several ways."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import asyncpg
from tests.features.generate.painted import PROVIDER_KEY
from tests.standins import gemini
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import MODEL, OpenAIStandIn
from tests.standins.wire import Reply, Seen, serving

DRAWING_SECONDS = 3
STUB, CAREFUL, LAVISH = "banana", "careful", "lavish"
PRICES = {STUB: 10_000, CAREFUL: 50_000, LAVISH: 70_000, "nano-banana": 0}
"""Of an image by model, in millionths; the last is that of a server without a file of models."""
FIRST_COST, SECOND_COST = 39_000, 42_000

_FILE = f"""
default = "{STUB}"
currency = "USD"
[models.{STUB}]
price = "0.01"
[[models.{STUB}.routes]]
provider = "stub"
"""
_TWO_ROUTES = """
[models.{name}]
price = "{price}"
may_pay_twice = {may_pay_twice}
[[models.{name}.routes]]
provider = "gemini"
base_url = "{first_url}"
model = "{first_model}"
key = "GEMINI_API_KEY"
cost = "0.039"
timeout_seconds = 0.5
[[models.{name}.routes]]
order = 2
provider = "openai"
base_url = "{second_url}/v1"
model = "{second_model}"
key = "OPENAI_API_KEY"
cost = "0.042"
"""
_GOOD = gemini.drawn(gemini.image_bytes(1024, 1024))
_REPLIES = [
    _GOOD,
    gemini.failed(503, "UNAVAILABLE"),
    _GOOD,
    gemini.failed(500, "INTERNAL"),
    Reply(is_reset=True),
    _GOOD,
    Reply(gate=asyncio.Event()),
    gemini.html(),
    gemini.blocked_prompt("SAFETY"),
]
"""Of the first route in turn: an image, or each way of failing that is treated in a way of its own."""


@asynccontextmanager
async def models_on_standins(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """The settings of a server that offers these models, as long as their providers run."""
    first, second, replies = GeminiStandIn(api_key=PROVIDER_KEY), OpenAIStandIn(api_key=PROVIDER_KEY), cycle(_REPLIES)

    def answer_first(seen: Seen) -> Reply:
        if seen.method == "POST":  # a server that starts tries each route by a GET
            first.faults.append(next(replies))
        return first.answer(seen)

    async with serving(answer_first) as first_url, serving(second.answer) as second_url:
        urls = {"first_url": first_url, "first_model": gemini.MODEL, "second_url": second_url, "second_model": MODEL}
        models = [
            _TWO_ROUTES.format(name=CAREFUL, price="0.05", may_pay_twice="false", **urls),
            _TWO_ROUTES.format(name=LAVISH, price="0.07", may_pay_twice="true", **urls),
        ]
        path = folder / "models.toml"
        path.write_text("".join([_FILE, *models]))
        yield {
            "MODELS_FILE": str(path),
            "GEMINI_API_KEY": PROVIDER_KEY,
            "OPENAI_API_KEY": PROVIDER_KEY,
            "GENERATION_DEADLINE_SECONDS": str(DRAWING_SECONDS),
        }


def is_as_the_catalogue_says(row: asyncpg.Record) -> bool:
    """Whether a delivered row has the list price of its model, and a cost that its tries can have come to."""
    if row["environment"] == "test" or row["model"] not in {CAREFUL, LAVISH}:
        price = 0 if row["environment"] == "test" else PRICES.get(row["model"])
        return row["list_price"] == price and not row["cost"]
    is_second = row["route"] == f"{row['model']}/2"
    last, other = (SECOND_COST, FIRST_COST) if is_second else (FIRST_COST, SECOND_COST)
    others_max = row["tries"] - 1 if row["model"] == LAVISH else 0
    costs = {last * n + other * m for n in range(1, row["tries"] + 1) for m in range(others_max + 1)}
    return row["list_price"] == PRICES[row["model"]] and row["cost"] in costs
