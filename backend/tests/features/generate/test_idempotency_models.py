"""`Idempotency-Key` and what a request names: models, sizes and hints; claims of the version before."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from app.generations.accept import claim_of
from app.generations.ledger.queue import IdempotencyClaim
from app.generations.spec import Caller, GenerationSpec
from tests.conftest import Start
from tests.features.generate.two_routes import ModelOfTwo, TwoRoutes, two_routes
from tests.features.usage.recorded import total
from tests.harness import JSON, Account
from tests.problems import check_problem

ROUTE = "/v1/images/generations"
ONCE = {"Idempotency-Key": "once"}
CALLER = Caller("key_1", "acc_1", "live", 0)
HINTS = {"style": "vivid", "moderation": "low", "user": "ada", "input_fidelity": "low", "partial_images": 2}


def claim(**asked: Any) -> IdempotencyClaim:
    made = claim_of(CALLER, GenerationSpec("A cute banana", "64x64", **asked), route=ROUTE, idempotency_key="once")
    assert made is not None
    return made


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_claim_of_the_version_before_fits_the_same_request_with_and_without_the_model_of_then(
    *, as_bytes: bool
) -> None:
    # That one recorded the same whether a request named `nano-banana` or no model.
    recorded = sha256(json.dumps(["A cute banana", "64x64", "png", "1", str(as_bytes)]).encode()).digest()
    for model in (None, "nano-banana"):
        assert recorded in claim(model=model, as_bytes=as_bytes).fingerprints
        assert recorded not in claim(model=model, as_bytes=not as_bytes).fingerprints
        assert recorded not in claim(model=model, as_bytes=as_bytes, quality="high").fingerprints
    for more in ({"model": "other"}, {"background": "transparent"}, {"compression": 1}):
        assert recorded not in claim(**more, as_bytes=as_bytes).fingerprints


HIGH, BYTES, NAMED = {"quality": "high"}, {"as_bytes": True}, {"model": "picture"}
PAIRS: list[tuple[JSON, JSON, bool]] = [
    ({}, {"model": "nano-banana"}, True),
    ({}, {"background": "opaque"}, True),
    ({}, NAMED, False),
    (NAMED, {}, False),
    (NAMED, {"model": "other"}, False),
    (NAMED, {**NAMED, **BYTES}, True),
    ({}, BYTES, False),
    (HIGH, {**HIGH, **BYTES}, False),
    (HIGH, {"quality": "low"}, False),
    (HIGH, {}, False),
    ({"background": "transparent"}, {}, False),
    ({"compression": 10}, {"compression": 20}, False),
]


@pytest.mark.parametrize(("first", "second", "is_same"), PAIRS)
def test_what_is_the_same_request(first: JSON, second: JSON, *, is_same: bool) -> None:
    recorded, *_ = claim(**first).fingerprints
    assert (recorded in claim(**second).fingerprints) == is_same
    assert recorded in claim(**first).fingerprints


async def test_hints_change_nothing_and_another_quality_compression_or_background_is_another_request(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()

    async def ask(**more: object) -> httpx2.Response:
        body = {"prompt": "A cute banana", "size": "64x64", "output_format": "webp", **more}
        return await client.post(ROUTE, json=body, headers={**key.headers, **ONCE})

    first = await ask()
    for more in (HINTS, {"quality": "standard", "background": "opaque"}, {"model": "nano-banana", "n": 1}):
        again = await ask(**more)
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    for other in ({"quality": "high"}, {"output_compression": 10}, {"model": "gpt-image-1"}):
        check_problem(await ask(**other), 422, "idempotency_key_reused")
    assert await total(database, key) == 1


async def _ask(there: TwoRoutes, owner: TwoRoutes, **more: object) -> httpx2.Response:
    body = {"prompt": "A cute banana", "size": "1536x1024", **more}
    return await there.client.post(ROUTE, json=body, headers={**owner.key.headers, **ONCE})


async def test_another_model_is_another_request_and_a_replay_outlives_its_size_and_its_model(
    start: Start, tmp_path: Path, database: asyncpg.Connection
) -> None:
    only_squares = ModelOfTwo(of_first='sizes = { "1024x1024" = "1:1/1K" }', of_second='sizes = ["1024x1024"]')
    async with two_routes(start, tmp_path, {"picture": ModelOfTwo(), "other": ModelOfTwo()}) as there:
        first = await _ask(there, there)
        assert first.status_code == 200, first.text
        check_problem(await _ask(there, there, model="other"), 422, "idempotency_key_reused")
        check_problem(await _ask(there, there, model="picture"), 422, "idempotency_key_reused")
        async with two_routes(start, tmp_path, {"later": only_squares}) as later:
            for more in ({}, {"stream": True}):
                again = await _ask(later, there, **more)
                assert (again.status_code, again.headers["x-model"]) == (200, "picture")
                assert again.headers["idempotent-replayed"] == "true"
            check_problem(await _ask(later, there, model="other"), 422, "idempotency_key_reused")
            check_problem(await _ask(later, later), 422, "validation_error")
            assert later.calls == (0, 0)
        assert await total(database, there.key) == 1
