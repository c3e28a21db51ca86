"""The responses of generate are written by hand, and equal what the schemas would write."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx2
import pytest
from app.core.images import ImageFormat
from app.features.generate.schemas import GenerationPublic, GenerationShown
from app.generations.jobs.state import GenerationState, ImageState
from app.providers import ProviderTimeout
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


STATE = GenerationState(
    id="gen_1",
    url="https://pictures.test/v1/images/gen_1.png",
    prompt="A cute banana",
    model="banana",
    size="1536x1024",
    quality="high",
    format="png",
    price="0.05",
    currency=None,
    environment="live",
    key_id="key_1",
    created_at=EPOCH,
    inputs=(),
    status="queued",
    error=None,
    started_at=None,
    delivered_at=None,
    expires_at=EPOCH + timedelta(hours=20),
    request_id="gen_1",
    position=3,
    outputs=[ImageState("gen_1", None, "queued", None)],
)
ENDED: Mapping[str, Any] = {"started_at": EPOCH, "delivered_at": EPOCH + timedelta(microseconds=1), "position": None}
REFUSED = ProviderTimeout('It said "no" \u7981')
STATES = {
    "queued": STATE,
    "delivered, with inputs": replace(STATE, **ENDED, status="delivered", currency="USD", inputs=("upl_1", None)),
    "failed": replace(
        STATE, status="failed", error=REFUSED, outputs=[ImageState("gen_1", None, "failed", REFUSED)] * 2
    ),
}


@pytest.mark.parametrize("name", STATES)
@given(prompt=st.text(st.characters(exclude_categories=["Cs"])))
def test_the_state_is_the_one_that_the_schema_would_write(name: str, prompt: str) -> None:
    state = replace(STATES[name], prompt=prompt)
    assert GenerationShown.write(state) == GenerationShown.model_validate(state).model_dump_json().encode()


async def test_the_fast_route_is_documented_like_any_other(client: httpx2.AsyncClient, account: Account) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    operation = paths["/v1/generate"]["post"]
    assert operation["operationId"] == "generate"
    assert operation["security"] == [{"API key": []}]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("GenerationCreate")
    assert {"200", "400", "401", "413", "415", "422", "429", "503"} <= set(operation["responses"])
    answer = await client.put("/v1/generate", headers=account.headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
