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


def claim(default_model: str = "nano-banana", **asked: Any) -> IdempotencyClaim:
    made = claim_of(
        CALLER,
        GenerationSpec("A cute banana", "64x64", **asked),
        route=ROUTE,
        idempotency_key="once",
        default_model=default_model,
    )
    assert made is not None
    return made


def before(*, as_bytes: bool = False) -> bytes:
    """What the version before recorded of the same request, whether it named `nano-banana` or no model."""
    return sha256(json.dumps(["A cute banana", "64x64", "png", "1", str(as_bytes)]).encode()).digest()


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("default_model", ["nano-banana", "picture"])
def test_a_claim_of_the_version_before_fits_a_request_with_and_without_its_model(
    default_model: str, *, as_bytes: bool
) -> None:
    for model in (None, "nano-banana"):
        fitting = claim(default_model, model=model, as_bytes=as_bytes).fingerprints
        assert before(as_bytes=as_bytes) in fitting
        assert before(as_bytes=not as_bytes) not in fitting
    for more in ({"model": "other"}, {"quality": "high"}, {"background": "transparent"}, {"compression": 1}):
        assert before() not in claim(default_model, **more).fingerprints


SAME: list[tuple[str, JSON, JSON, bool]] = [
    ("nano-banana", {}, {"model": "nano-banana"}, True),
    ("picture", {}, {"model": "picture"}, True),
    ("picture", {"quality": "high"}, {"quality": "high", "model": "picture"}, True),
    ("picture", {}, {"model": "other"}, False),
    ("picture", {"model": "picture"}, {"model": "other"}, False),
    ("picture", {"quality": "high"}, {"quality": "low"}, False),
    ("picture", {"quality": "high"}, {}, False),
    ("picture", {"background": "opaque"}, {}, True),
    ("picture", {"background": "transparent"}, {}, False),
    ("picture", {"compression": 10}, {"compression": 20}, False),
]


@pytest.mark.parametrize(("default_model", "one", "other", "is_same"), SAME)
def test_a_default_model_that_is_named_is_the_same_request_in_either_order(
    default_model: str, one: JSON, other: JSON, *, is_same: bool
) -> None:
    for first, second in ((one, other), (other, one)):
        recorded, *_ = claim(default_model, **first).fingerprints
        assert (recorded in claim(default_model, **second).fingerprints) == is_same
        assert recorded in claim("another", **first).fingerprints, "as it was sent, it fits whatever the default is"


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
        named = await _ask(there, there, model="picture")
        assert (named.content, named.headers["idempotent-replayed"]) == (first.content, "true")
        async with two_routes(start, tmp_path, {"later": only_squares}) as later:
            for more in ({}, {"stream": True}):
                again = await _ask(later, there, **more)
                assert (again.status_code, again.headers["x-model"]) == (200, "picture")
                assert again.headers["idempotent-replayed"] == "true"
            check_problem(await _ask(later, there, model="other"), 422, "idempotency_key_reused")
            check_problem(await _ask(later, later), 422, "validation_error")
            assert later.calls == (0, 0)
        assert await total(database, there.key) == 1
