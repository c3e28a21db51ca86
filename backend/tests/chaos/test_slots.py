"""Slots of generations that run at a time: counted over all workers, and never lost with one of them."""

import asyncio
import subprocess
import sys
from collections import Counter
from itertools import chain

import pytest
from app.core.settings import Settings
from app.generations.lifetime import lifetime_of
from app.ratelimit import Slot
from tests.chaos.conftest import DEADLINE_SECONDS
from tests.chaos.fleet import BACKEND
from tests.chaos.ground import Ground
from tests.chaos.holder import limiter
from tests.chaos.load import Call, lines_to_every_worker
from tests.chaos.schedule import times
from tests.chaos.verify import violations
from tests.harness import looks

SLOTS = 5
HELD_SECONDS = 5
LOOK_SECONDS = 0.1


async def test_the_slots_of_a_key_are_shared_by_all_workers(ground: Ground, journal: list[Call]) -> None:
    [key] = await ground.keys(1, concurrency=SLOTS)
    body_after = asyncio.Event()
    async with lines_to_every_worker(ground.fleet, journal, each=SLOTS) as lines:
        everyone = list(chain(*lines))
        asked = [asyncio.create_task(line.ask(key, f"{n}", body_after=body_after)) for n, line in enumerate(everyone)]
        refused = len(everyone) - SLOTS
        await until_answered(journal, refused)
        assert Counter(call.code for call in journal) == {"concurrency_limit_exceeded": refused}
        body_after.set()
        await asyncio.gather(*asked)
        assert Counter(call.status for call in journal) == {200: SLOTS, 429: refused}
        for n in range(2 * SLOTS):
            assert (await everyone[n].ask(key, f"one after the other {n}")).status == 200
    assert await violations(ground.cluster, journal) == []


async def until_answered(journal: list[Call], count: int) -> None:
    for _ in looks():
        if len(journal) >= count:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"{len(journal)} of {count} were answered")


async def test_slots_held_by_a_killed_process_are_free_after_their_seconds(ground: Ground) -> None:
    url, group = ground.redis.url, ground.account.id
    arguments = [url, group, str(SLOTS), str(HELD_SECONDS)]
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.holder", *arguments, cwd=BACKEND, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    holder.kill()
    await holder.communicate()
    others = limiter(url)
    slot = Slot("key", SLOTS, HELD_SECONDS, "afterwards")
    assert (await others.take([], group=group, slot=slot)).no_free_slot
    for _ in range(round(2 * HELD_SECONDS / LOOK_SECONDS)):
        if (await others.take([], group=group, slot=slot)).allowed:
            break
        await asyncio.sleep(LOOK_SECONDS)
    results = [await others.take([], group=group, slot=slot._replace(id=str(n))) for n in range(SLOTS)]
    assert [result.allowed for result in results] == [True] * (SLOTS - 1) + [False]
    await others.close()


@pytest.mark.skipif(times(short=1, long=0) == 1, reason="a slot is held for long: CHAOS=long")
async def test_slots_held_by_a_killed_worker_are_free_after_their_seconds(ground: Ground, journal: list[Call]) -> None:
    [key] = await ground.keys(1, concurrency=SLOTS)
    async with lines_to_every_worker(ground.fleet, journal, each=SLOTS + 1) as [mine, [other, *_], *_]:
        never = asyncio.Event()
        asked = [asyncio.create_task(line.ask(key, f"{n}", body_after=never)) for n, line in enumerate(mine)]
        await until_answered(journal, 1)
        ground.fleet.kill(ground.fleet.holders()[await mine[0].connect()])
        held = Counter(call.code for call in await asyncio.gather(*asked))
        assert held == {"reset": SLOTS, "concurrency_limit_exceeded": 1}
        assert (await other.ask(key, "no free slot")).code == "concurrency_limit_exceeded"
        settings = Settings(record_deadline_seconds=DEADLINE_SECONDS)
        slot_seconds = lifetime_of(settings).slot_seconds
        for n in range(round(slot_seconds / LOOK_SECONDS)):
            if (await other.ask(key, f"free {n}")).outcome == "ok":
                break
            await asyncio.sleep(LOOK_SECONDS)
        assert journal[-1].outcome == "ok"
    await ground.fleet.whole()
    assert await violations(ground.cluster, journal) == []
