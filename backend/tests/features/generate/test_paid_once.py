"""What may have been paid at a provider is not bought again: not by this service, and not by a client by itself."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle, groupby, islice
from typing import NoReturn

import asyncpg
import httpx2
import pytest
from app.core.errors import Unavailable
from app.generations.collaborators import Generations
from app.generations.errors import OutcomeUnknown
from app.generations.ledger import Ledger
from app.storage import StoreUnavailable
from app.storage.filesystem import FilesystemStore
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted, painted_by_openai
from tests.features.usage.recorded import total
from tests.harness import generate, until_ready
from tests.problems import check_problem
from tests.providers.failures import BY_NAME, Dialect, Failure, Place, failures_of, provider_url
from tests.standins import gemini
from tests.standins.wire import Reply

DEADLINE_SECONDS = 2
"""Of providers that are silent."""

Told = tuple[str, int, bool]
"""The code, the calls that came to the provider, and whether the client is told not to repeat its request."""


def is_final(answer: httpx2.Response) -> bool:
    """Whether OpenAI's SDKs leave it at this answer."""
    return answer.headers.get("x-should-retry") == "false"


@asynccontextmanager
async def failing(start: Start, dialect: Dialect, place: Place, *, is_silent: bool) -> AsyncIterator[Painted]:
    """An application whose provider is in this place."""
    async with provider_url(place) as url:
        path = "/v1" if dialect == "openai" else ""
        elsewhere = {} if url is None else {f"{dialect}_base_url": f"{url}{path}"}
        deadline = {"generation_deadline_seconds": DEADLINE_SECONDS} if is_silent else {}
        async with (painted if dialect == "gemini" else painted_by_openai)(start, **elsewhere, **deadline) as there:
            yield there


async def ask(there: Painted, reply: Reply) -> Told:
    there.provider.seen.clear()
    there.provider.faults.extend([reply] * 9)
    answer = await generate(there.client, there.key)
    there.provider.faults.clear()
    return answer.json()["code"], len(there.provider.seen), is_final(answer)


async def walk(start: Start, dialect: Dialect) -> dict[str, Told]:
    """For each failure, the code, the calls that it cost, and whether the client is told not to repeat. Those of each
    place are asked of an application of their own, all of which run at once: some wait for a deadline.
    """

    async def ask_at(place: Place, failures: list[Failure], *, is_silent: bool) -> dict[str, Told]:
        async with failing(start, dialect, place, is_silent=is_silent) as there:
            return {failure.name: await ask(there, failure.reply(dialect)) for failure in failures}

    places = [
        ask_at(place, list(failures), is_silent=is_silent)
        for (place, is_silent), failures in groupby(
            failures_of(dialect), key=lambda failure: (failure.place, failure.is_silent)
        )
    ]
    return {name: told for found in await asyncio.gather(*places) for name, told in found.items()}


@pytest.mark.parametrize("dialect", ["gemini", "openai"])
@pytest.mark.usefixtures("short_pauses")
async def test_every_way_of_failing_costs_what_it_must_and_its_client_is_told_whether_to_repeat(
    start: Start, dialect: Dialect
) -> None:
    found = await walk(start, dialect)
    sys.stdout.writelines(f"{dialect} | {name} | {calls} | {final}\n" for name, (_, calls, final) in found.items())
    assert found == {each.name: (each.code, each.calls, each.is_final) for each in failures_of(dialect)}


@pytest.mark.parametrize(("name", "calls", "delivered"), [("503", 12, 4), ("502 of a gateway", 10, 4)])
@pytest.mark.usefixtures("short_pauses")
async def test_ten_images_of_a_provider_that_fails_six_times_in_ten_are_a_bounded_number_of_calls_and_some_delivered(
    start: Start, database: asyncpg.Connection, name: str, calls: int, delivered: int
) -> None:
    fault, good = BY_NAME[name].gemini, gemini.drawn(gemini.image_bytes(1024, 1024))
    async with painted(start) as there:
        there.provider.faults.extend(islice(cycle([fault] * 6 + [good] * 4), 1000))
        answer = await there.client.post(
            "/v1/images/generations", json={"prompt": "A cute banana", "n": 10}, headers=there.key.headers
        )
        sys.stdout.write(f"n=10, six in ten are {name}: {len(there.provider.seen)}\n")
        assert (answer.status_code, len(answer.json()["data"])) == (200, delivered)
        assert len(there.provider.seen) == calls
        assert await total(database, there.key) == delivered


async def test_a_request_that_finds_no_slot_and_no_place_in_line_buys_none_of_its_images(start: Start) -> None:
    async with painted(start, provider_calls_max=2, provider_calls_max_per_account=1) as there:
        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        body = {"prompt": "A cute banana", "n": 3}
        drawn = asyncio.create_task(there.client.post("/v1/images/generations", json=body, headers=there.key.headers))
        await there.asked()
        refused = await there.client.post("/v1/images/generations", json=body, headers=there.key.headers)
        check_problem(refused, 503, "unavailable")
        assert not is_final(refused)
        assert len(there.provider.seen) == 1
        gate.set()
        assert len((await drawn).json()["data"]) == 3, "its other images waited for the one slot of the account"
        assert len(there.provider.seen) == 3


async def test_where_one_image_cost_nothing_and_another_may_have_been_paid_the_client_is_told_not_to_repeat(
    start: Start,
) -> None:
    async with painted(start) as there:
        gate = asyncio.Event()
        there.provider.faults.append(Reply(BY_NAME["400"].gemini.content, 400, gate=gate))
        there.provider.faults.append(BY_NAME["502 of a gateway"].gemini)
        body = {"prompt": "A cute banana", "n": 2}
        asked = asyncio.create_task(there.client.post("/v1/images/generations", json=body, headers=there.key.headers))
        await there.asked(2)
        gate.set()
        answer = await asked
        check_problem(answer, 502, "provider_failed")
        assert is_final(answer)


@pytest.mark.parametrize(
    ("owner", "method", "error", "status", "code"),
    [
        (Generations, "convert", Unavailable(), 503, "unavailable"),
        (FilesystemStore, "put", StoreUnavailable(), 503, "unavailable"),
        (FilesystemStore, "put", OSError("the disk is gone"), 503, "unavailable"),
        (FilesystemStore, "put", ValueError("a defect"), 500, "internal_error"),
        (Ledger, "settle", ValueError("a defect"), 500, "internal_error"),
    ],
)
async def test_whatever_fails_after_an_image_was_drawn_the_client_is_told_not_to_repeat(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    *,
    owner: type,
    method: str,
    error: Exception,
    status: int,
    code: str,
) -> None:
    async def fail(*_: object, **__: object) -> NoReturn:
        raise error

    async with painted(start) as there:
        monkeypatch.setattr(owner, method, fail)
        for route in ("/v1/generate", "/v1/images/generations"):
            await until_ready(there.client)
            answer = await there.client.post(route, json={"prompt": "A cute banana"}, headers=there.key.headers)
            check_problem(answer, status, code)
            assert is_final(answer)
        assert len(there.provider.seen) == 2


async def test_an_unknown_outcome_may_be_repeated_with_an_idempotency_key_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> NoReturn:
        raise OutcomeUnknown

    async with painted(start) as there:
        monkeypatch.setattr(Ledger, "record", fail)
        for once, final in (({}, True), ({"Idempotency-Key": "once"}, False)):
            headers = {**there.key.headers, **once}
            answer = await there.client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=headers)
            check_problem(answer, 503, "outcome_unknown")
            assert is_final(answer) == final, "without one, a repeat could count a second time"
        assert there.provider.seen == []
