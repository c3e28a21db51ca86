"""A model of two routes whose first one fails in every way: which failures go on to the second, and what it costs."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from app.core.settings import Settings
from tests.conftest import Start
from tests.features.generate.two_routes import FIRST_COST, PRICE, SECOND_COST, ModelOfTwo, two_routes
from tests.features.usage.recorded import total
from tests.harness import generate, sign_up
from tests.providers.failures import Failure, failures_of, provider_url
from tests.standins import gemini, openai
from tests.standins.wire import Reply

SHORT = "timeout_seconds = 0.4"
FAILURES = failures_of("gemini")
IMAGE = gemini.image_bytes(1024, 1024)


def goes_on(failure: Failure, *, may_pay_twice: bool, refused_goes_on: bool) -> bool:
    """Whether the second route is tried, by the table of docs/models.md."""
    if failure.failure == "refused":
        return refused_goes_on
    if failure.failure == "request":
        return False
    return not failure.may_have_been_paid or (may_pay_twice and failure.calls < 2)


@pytest.mark.parametrize(
    ("of_model", "may_pay_twice", "refused_goes_on"),
    [("", False, False), ("may_pay_twice = true", True, False), ('on_refusal = "next"', False, True)],
    ids=["by default", "may_pay_twice", "on_refusal"],
)
async def test_what_goes_on_to_the_next_route_and_what_each_way_of_failing_costs(
    start: Start,
    tmp_path: Path,
    database: asyncpg.Connection,
    of_model: str,
    *,
    may_pay_twice: bool,
    refused_goes_on: bool,
) -> None:
    # A model for each way of failing, since each route has a breaker of its own.
    async with AsyncExitStack() as places:
        models = {
            f"model-{number}": ModelOfTwo(
                of_model,
                SHORT * failure.is_silent,
                first_url=await places.enter_async_context(provider_url(failure.place)),
            )
            for number, failure in enumerate(FAILURES)
        }
        there = await places.enter_async_context(two_routes(start, tmp_path, models))
        delivered = 0
        for name, failure in zip(models, FAILURES, strict=True):
            there.first.faults.extend([failure.gemini] * 3)
            answer = await there.generate(name)
            there.first.faults.clear()
            on = goes_on(failure, may_pay_twice=may_pay_twice, refused_goes_on=refused_goes_on)
            delivered += on
            first_calls = min(failure.calls, 1 if not failure.may_have_been_paid else 2)
            assert there.calls == (first_calls, on), failure.name
            assert answer.status_code == 200 if on else answer.json()["code"] == failure.code, failure.name
            row = await there.last_row(database)
            paid = FIRST_COST * first_calls * failure.may_have_been_paid + SECOND_COST * on
            assert (row["model"], row["route"]) == (name, f"{name}/{1 + on}"), failure.name
            assert (row["tries"], row["cost"], row["list_price"]) == (first_calls + on, paid, PRICE), failure.name
            assert row["provider"] == ("openai" if on else "gemini"), failure.name
        assert await total(database, there.key) == delivered


async def test_a_breaker_opens_lets_one_probe_pass_and_closes(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.catalogue.breaker.OPEN_SECONDS", 0.5)
    async with two_routes(start, tmp_path) as there:
        there.first.faults.extend([gemini.failed(503, "UNAVAILABLE")] * 5)
        for _ in range(5):
            assert (await there.generate()).status_code == 200
        assert there.calls == (5, 5)
        assert (await there.generate()).status_code == 200
        assert there.calls == (0, 1), "it is open"
        await asyncio.sleep(0.6)
        gate = asyncio.Event()
        there.first.faults.append(gemini.slow(gate))
        probe = asyncio.create_task(there.generate())
        await there.first_called()
        assert (await there.generate()).status_code == 200
        assert there.calls == (1, 1), "one probes, and the other request goes to the second route"
        gate.set()
        assert (await probe).status_code == 200
        assert (await there.generate()).status_code == 200
        assert there.calls == (1, 0), "it is closed"


async def test_where_all_routes_are_open_they_are_tried_all_the_same(start: Start, tmp_path: Path) -> None:
    async with two_routes(start, tmp_path) as there:
        there.first.faults.append(gemini.failed(401, "UNAUTHENTICATED"))
        there.second.faults.append(Reply(b"", 401))
        assert (await there.generate()).json()["code"] == "provider_unavailable"
        assert (await there.generate()).status_code == 200
        assert there.calls == (2, 1)


async def test_a_route_that_hangs_takes_nothing_from_another(start: Start, tmp_path: Path) -> None:
    models = {
        "hangs": ModelOfTwo(of_first="calls_max = 4"),
        "works": ModelOfTwo(),
        "one": ModelOfTwo("", "calls_max = 1"),
    }
    async with two_routes(start, tmp_path, models) as there:
        gate = asyncio.Event()
        there.first.faults.extend([gemini.slow(gate)] * 3)
        hanging = [asyncio.create_task(there.generate(name)) for name in ("hangs", "hangs", "one")]
        await there.first_called(3)
        for name in ("works", "hangs", "hangs"):
            assert (await there.generate(name)).status_code == 200
        assert there.calls == (4, 2), "the account has its share of the first route's slots, and of those of no other"
        stranger = await (await sign_up(there.client)).create_key()
        assert (await generate(there.client, stranger, model="one")).status_code == 200
        assert there.calls == (0, 1), "the only slot is taken, by whichever account"
        gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*hanging)] == [200] * 3


async def test_one_deadline_ends_all_routes_and_nothing_of_them_is_left_running(
    start: Start, tmp_path: Path, database: asyncpg.Connection
) -> None:
    one, never = "calls_max = 1", asyncio.Event()
    models = {"picture": ModelOfTwo("may_pay_twice = true", f"{SHORT}\n{one}", one)}
    async with two_routes(start, tmp_path, models, generation_deadline_seconds=1) as there:
        there.first.faults.extend([gemini.slow(never), gemini.failed(503, "UNAVAILABLE")])
        there.second.faults.append(replace(openai.in_place(IMAGE), delay_seconds=0.8))
        answer = await there.generate()
        assert answer.status_code == 504, "the second is in time for itself, and with the first too late"
        assert answer.json()["code"] == "provider_timeout"
        assert there.calls == (1, 1)
        row = await there.last_row(database)
        assert (row["status"], row["route"], row["tries"]) == ("failed", "picture/2", 2)
        assert (row["cost"], row["lease_until"]) == (FIRST_COST + SECOND_COST, None)
        assert (await there.generate()).status_code == 200, "the only slot of the second route is free"
        assert (await there.generate()).status_code == 200, "and that of the first"
        assert there.calls == (2, 1)
        assert await total(database, there.key) == 2


async def test_an_image_of_the_second_route_that_comes_after_the_lease_is_thrown_away(
    start: Start, settings: Settings, tmp_path: Path, database: asyncpg.Connection
) -> None:
    async with two_routes(start, tmp_path) as there:
        gate = asyncio.Event()
        there.first.faults.append(gemini.failed(503, "UNAVAILABLE"))
        there.second.faults.append(replace(openai.in_place(IMAGE), gate=gate))
        running = asyncio.create_task(there.generate())
        await there.second_called()
        row = await there.last_row(database)
        await database.execute("update generations set status = 'lost' where id = $1", row["id"])
        gate.set()
        answer = await running
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["x-should-retry"] == "false", "it was drawn"
        row = await there.last_row(database)
        assert (row["status"], row["route"], row["delivered_at"]) == ("lost", None, None)
        assert list((settings.data_dir / "pictures").rglob(f"{row['id']}*")) == []
        assert await total(database, there.key) == 0


async def test_images_of_one_request_go_their_own_ways_and_count_once_each(
    start: Start, tmp_path: Path, database: asyncpg.Connection
) -> None:
    async with two_routes(start, tmp_path) as there:
        there.first.faults.extend(
            [gemini.failed(503, "UNAVAILABLE"), gemini.failed(500, "INTERNAL"), gemini.blocked_prompt("SAFETY")]
        )
        body = {"prompt": "A cute banana", "n": 4, "size": "1024x1024", "model": "picture"}
        answer = await there.client.post("/v1/images/generations", json=body, headers=there.key.headers)
        assert answer.status_code == 200
        codes = sorted(each["code"] for each in answer.json()["errors"])
        assert "provider_failed" in codes
        rows = await database.fetch(
            "select status, route, tries, cost from generations where key_id = $1", there.key.id
        )
        assert len(rows) == 4
        delivered = [row for row in rows if row["status"] == "delivered"]
        assert await total(database, there.key) == len(delivered) == len(answer.json()["data"])
        assert sum(row["tries"] for row in rows) == sum(there.calls)


async def test_weights_share_the_requests_among_routes_of_one_order(start: Start, tmp_path: Path) -> None:
    async with two_routes(start, tmp_path, {"picture": ModelOfTwo(of_first="order = 2\nweight = 4")}) as there:
        for _ in range(40):
            assert (await there.generate()).status_code == 200
        first, second = there.calls
        assert first + second == 40
        assert first > second > 0, "four in five: another outcome has a chance of less than 1 in 1,000"


async def test_a_request_with_an_idempotency_key_goes_the_same_way_each_time(start: Start, tmp_path: Path) -> None:
    async with two_routes(start, tmp_path, {"picture": ModelOfTwo(of_first="order = 2")}) as there:
        there.first.faults.extend([gemini.failed(400, "INVALID")] * 10)
        there.second.faults.extend([openai.failed(400, "invalid_value")] * 10)
        headers = {**there.key.headers, "Idempotency-Key": "once"}
        ways = set()
        for _ in range(10):
            answer = await there.client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=headers)
            assert answer.json()["code"] == "provider_failed"
            ways.add(there.calls)
        assert len(ways) == 1, "by another draw each time, they would be one in 1,000 times"


async def test_a_replay_is_answered_after_its_model_is_gone_and_another_request_is_still_refused(
    start: Start, tmp_path: Path, database: asyncpg.Connection
) -> None:
    once = {"Idempotency-Key": "once"}
    async with two_routes(start, tmp_path, {"old": ModelOfTwo()}) as there:
        body = {"prompt": "A cute banana", "model": "old"}
        first = await there.client.post("/v1/generate", json=body, headers={**there.key.headers, **once})
        assert first.status_code == 200
        async with two_routes(start, tmp_path, {"new": ModelOfTwo()}) as later:
            again = await later.client.post("/v1/generate", json=body, headers={**there.key.headers, **once})
            assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
            other = {**body, "prompt": "Another banana"}
            answer = await later.client.post("/v1/generate", json=other, headers={**there.key.headers, **once})
            assert answer.json()["code"] == "idempotency_key_reused"
            answer = await later.client.post("/v1/generate", json=body, headers=there.key.headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
            assert "use new, or leave model out" in answer.json()["detail"]
        assert await total(database, there.key) == 1


async def test_test_keys_see_the_same_sizes_and_refusals_and_pay_nothing(
    start: Start, tmp_path: Path, database: asyncpg.Connection
) -> None:
    async with two_routes(start, tmp_path) as there:
        key = await there.account.create_key(environment="test")
        for sent, status in (("1024x1024", 200), ("64x64", 422)):
            body = {"prompt": "A cute banana", "model": "picture", "size": sent}
            live, test = [
                await there.client.post("/v1/generate", json=body, headers=each.headers) for each in (there.key, key)
            ]
            assert (live.status_code, test.status_code) == (status, status)
            if status == 200:
                assert (live.json()["price"], test.json()["price"], live.json()["currency"]) == ("0.05", "0", "USD")
            else:
                assert live.json()["errors"] == test.json()["errors"]
        assert await total(database, key) == 1
