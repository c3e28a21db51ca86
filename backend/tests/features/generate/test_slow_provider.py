"""A provider that is slow, or never answers, takes its own places and nothing else."""

import asyncio
from functools import partial

import asyncpg
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import generate, sign_up, until_none_is_held
from tests.problems import check_problem
from tests.standins import gemini

SLOTS = {"provider_calls_max": 3, "provider_calls_max_per_account": 2}


async def test_while_a_provider_hangs_others_are_served_and_what_finds_no_slot_and_no_place_in_line_is_refused(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, **SLOTS, database_pool_size=1, generation_deadline_seconds=600) as there:
        stranger = await sign_up(there.client)
        other, test = await stranger.create_key(), await there.account.create_key(environment="test")
        gate = asyncio.Event()
        there.provider.faults.extend([gemini.slow(gate)] * 2)
        hanging = [asyncio.create_task(generate(there.client, there.key)) for _ in range(2)]
        await there.asked(2)
        await until_none_is_held(database)
        for key in (other, other, test):
            assert (await generate(there.client, key)).status_code == 200, "the third place is for whoever comes"

        there.provider.faults.append(gemini.slow(gate))
        hanging.append(asyncio.create_task(generate(there.client, other)))
        await there.asked(5)
        waiting = [asyncio.create_task(generate(there.client, key)) for key in (there.key, there.key, there.key)]
        [refused], _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting.remove(refused)
        check_problem(await refused, 503, "unavailable")
        assert (await generate(there.client, test)).status_code == 200
        await until_none_is_held(database)
        assert not any(call.done() for call in (*hanging, *waiting)), "what was answered did not wait for the provider"
        assert len(there.provider.seen) == 5, "what was refused never reached it"
        assert [await total(database, key) for key in (there.key, other, test)] == [0, 2, 2]

        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*hanging, *waiting)} == {200}
        assert (await generate(there.client, other)).status_code == 200
        assert [await total(database, key) for key in (there.key, other)] == [4, 4]


async def test_the_places_of_calls_that_came_to_their_deadline_are_free_again(
    start: Start, database: asyncpg.Connection
) -> None:
    there_is_room = {"provider_calls_max": 2, "provider_calls_max_per_account": 2}
    async with painted(start, generation_deadline_seconds=1, **there_is_room) as there:
        gate = asyncio.Event()
        there.provider.faults.extend([gemini.slow(gate)] * 2)
        for answer in await asyncio.gather(*(generate(there.client, there.key) for _ in range(2))):
            check_problem(answer, 504, "provider_timeout")
        assert await total(database, there.key) == 0
        assert (await generate(there.client, there.key)).status_code == 200
        assert await total(database, there.key) == 1
        gate.set()


async def test_an_account_that_asks_under_three_keys_for_ten_images_each_leaves_slots_to_another(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, provider_calls_max=4) as there:
        gate, ten = asyncio.Event(), {"prompt": "A cute banana", "n": 10}
        there.provider.faults.extend([gemini.slow(gate)] * 2)
        keys = [there.key, *[await there.account.create_key() for _ in range(2)]]
        ask = partial(there.client.post, "/v1/images/generations", json=ten)
        greedy = [asyncio.create_task(ask(headers=key.headers)) for key in keys]
        await there.asked(2)
        other = await (await sign_up(there.client)).create_key()
        answers = await asyncio.gather(*(generate(there.client, other) for _ in range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        assert len(there.provider.seen) == 2 + 4
        gate.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*greedy)]
        assert sorted(statuses) == [200, 503, 503], "its line was full"
        assert [await total(database, other), sum([await total(database, key) for key in keys])] == [4, 10]
