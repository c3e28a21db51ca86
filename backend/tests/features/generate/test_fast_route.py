"""The fast route of generate: its response is written by hand, and equals what the schema would write."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

import httpx2
from app.core.images import ImageFormat
from app.features.generate.schemas import GenerationPublic
from hypothesis import given
from hypothesis import strategies as st
from tests.harness import Account

EPOCH = datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=-3)))


@dataclass(frozen=True)
class Made:
    id: str
    url: str
    prompt: str
    created_at: datetime
    model: str = "banana"
    size: str = "1536x1024"
    quality: str = "high"
    format: ImageFormat = "png"
    price: int = 50_000
    inputs: Sequence[str | None] = ()


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    at=st.integers(min_value=0, max_value=4_000_000_000_000_000).map(lambda n: EPOCH + timedelta(microseconds=n)),
)
def test_the_response_is_the_one_that_the_schema_would_write(prompt: str, at: datetime) -> None:
    made = Made("gen_1", "https://pictures.test/v1/images/gen_1.png", prompt, at)
    for currency, inputs in ((None, ()), ("USD", ("gen_2", None))):
        made = replace(made, inputs=inputs)
        said = GenerationPublic.model_validate({**asdict(made), "price": "0.05", "currency": currency})
        assert GenerationPublic.write(made, currency=currency) == said.model_dump_json().encode()


def test_a_time_without_microseconds_is_written_as_the_schema_writes_it() -> None:
    made = Made(
        "gen_1", "https://pictures.test/v1/images/gen_1.png", "A cute banana", datetime(2026, 1, 28, tzinfo=UTC)
    )
    assert b'"created_at":"2026-01-28T00:00:00Z"' in GenerationPublic.write(made, currency=None)


async def test_the_fast_route_is_documented_like_any_other(client: httpx2.AsyncClient, account: Account) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    operation = paths["/v1/generate"]["post"]
    assert operation["operationId"] == "generate"
    assert operation["security"] == [{"API key": []}]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("GenerationCreate")
    assert {"200", "400", "401", "413", "415", "422", "429", "503"} <= set(operation["responses"])
    answer = await client.put("/v1/generate", headers=account.headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
