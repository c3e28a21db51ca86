"""A provider that is slow, or never answers, takes its own places and nothing else."""

import asyncio

import asyncpg
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import generate, until_none_is_held
from tests.problems import check_problem
from tests.standins import gemini


async def test_while_a_provider_hangs_others_are_served_and_what_finds_no_place_is_refused_at_once(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, provider_calls_max=3, database_pool_size=1, generation_deadline_seconds=600) as there:
        other, test = [await there.account.create_key(environment=each) for each in ("live", "test")]
        gate = asyncio.Event()
        there.provider.faults.extend([gemini.slow(gate)] * 2)
        hanging = [asyncio.create_task(generate(there.client, there.key)) for _ in range(2)]
        await there.asked(2)
        await until_none_is_held(database)
        for key in (other, other, test):
            assert (await generate(there.client, key)).status_code == 200, "the third place is for whoever comes"

        there.provider.faults.append(gemini.slow(gate))
        hanging.append(asyncio.create_task(generate(there.client, there.key)))
        await there.asked(5)
        refused = await generate(there.client, other)
        check_problem(refused, 503, "unavailable")
        assert (await generate(there.client, test)).status_code == 200
        await until_none_is_held(database)
        assert not any(call.done() for call in hanging), "all that was answered did not wait for the provider"
        assert len(there.provider.seen) == 5, "what was refused never reached it"
        assert [await total(database, key) for key in (there.key, other, test)] == [0, 2, 2]

        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*hanging)} == {200}
        assert (await generate(there.client, other)).status_code == 200
        assert [await total(database, key) for key in (there.key, other)] == [3, 3]


async def test_the_places_of_calls_that_came_to_their_deadline_are_free_again(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, provider_calls_max=2, generation_deadline_seconds=1) as there:
        gate = asyncio.Event()
        there.provider.faults.extend([gemini.slow(gate)] * 2)
        for answer in await asyncio.gather(*(generate(there.client, there.key) for _ in range(2))):
            check_problem(answer, 504, "provider_timeout")
        assert await total(database, there.key) == 0
        assert (await generate(there.client, there.key)).status_code == 200
        assert await total(database, there.key) == 1
        gate.set()
