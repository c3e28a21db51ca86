"""Four workers, one truth: no worker takes from another what was promised."""

import asyncio
from itertools import chain

from tests.chaos.ground import Ground
from tests.chaos.load import Call, lines_to_every_worker
from tests.chaos.schedule import Schedule, times
from tests.chaos.verify import violations


async def test_one_idempotency_key_a_hundred_times_at_once_over_all_workers_is_one_picture(
    ground: Ground, journal: list[Call]
) -> None:
    [key] = await ground.keys(1)
    async with lines_to_every_worker(ground.fleet, journal, each=25) as lines:
        assert len(lines) == 4
        for n in range(times(short=1, long=20)):
            calls = await asyncio.gather(
                *(line.ask(key, f"once {n}", idempotency_key=f"once-{n}") for line in chain(*lines))
            )
            assert {call.status for call in calls} == {200}
            assert len({(call.id, call.created_at) for call in calls}) == 1
            assert sum(call.replayed for call in calls) == 99
    assert await violations(ground.cluster, journal) == []


async def test_no_worker_takes_a_key_after_one_of_them_has_revoked_it(
    ground: Ground, schedule: Schedule, journal: list[Call]
) -> None:
    for n in range(times(short=1, long=20)):
        [key] = await ground.keys(1)
        async with lines_to_every_worker(ground.fleet, journal, each=25) as lines:
            assert len(lines) == 4
            for worker, [line, *_] in enumerate(lines):
                assert (await line.ask(key, f"warm {n} {worker}")).outcome == "ok"
            everyone = list(chain(*lines))
            before = [asyncio.create_task(line.ask(key, f"before {n} {m}")) for m, line in enumerate(everyone)]
            await asyncio.sleep(schedule.between(0, 0.05))
            await ground.account.revoke_key(key)
            await asyncio.gather(*before)
            for batch in range(4):
                calls = (line.ask(key, f"after {n} {batch} {m}") for m, line in enumerate(everyone))
                assert {call.status for call in await asyncio.gather(*calls)} == {401}
    assert await violations(ground.cluster, journal) == []
