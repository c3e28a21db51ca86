"""Places for generations that run at a time: counted over all workers, and never lost with one of them."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from itertools import chain

import pytest
from app.core.settings import Settings
from app.features.generate.dependencies import GenerateLimits
from app.ratelimit import Lease
from app.ratelimit.memory import MemoryLimiter
from tests.chaos.conftest import DEADLINE_SECONDS
from tests.chaos.fleet import BACKEND
from tests.chaos.ground import Ground
from tests.chaos.holder import limiter
from tests.chaos.load import Call, lines_to_every_worker
from tests.chaos.schedule import times
from tests.chaos.verify import violations
from tests.harness import looks

PLACES = 5
HELD_SECONDS = 5
LOOK_SECONDS = 0.1


async def test_a_place_is_a_place_on_every_worker(ground: Ground, journal: list[Call]) -> None:
    [key] = await ground.keys(1, concurrency=PLACES)
    body_after = asyncio.Event()
    async with lines_to_every_worker(ground.fleet, journal, each=PLACES) as lines:
        everyone = list(chain(*lines))
        asked = [asyncio.create_task(line.ask(key, f"{n}", body_after=body_after)) for n, line in enumerate(everyone)]
        refused = len(everyone) - PLACES
        await until_told(journal, refused)
        assert Counter(call.code for call in journal) == {"concurrency_limit_exceeded": refused}
        body_after.set()
        await asyncio.gather(*asked)
        assert Counter(call.status for call in journal) == {200: PLACES, 429: refused}
        for n in range(2 * PLACES):
            assert (await everyone[n].ask(key, f"one after the other {n}")).status == 200
    assert await violations(ground.cluster, journal) == []


async def until_told(journal: list[Call], count: int) -> None:
    for _ in looks():
        if len(journal) >= count:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"{len(journal)} of {count} were told")


async def test_places_held_by_a_process_that_is_killed_are_free_when_their_leases_end(ground: Ground) -> None:
    url, group = ground.redis.url, ground.account.id
    told = [url, group, str(PLACES), str(HELD_SECONDS)]
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.holder", *told, cwd=BACKEND, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    holder.kill()
    await holder.communicate()
    others = limiter(url)
    lease = Lease("key", PLACES, HELD_SECONDS, "afterwards")
    assert (await others.take([], group=group, lease=lease)).crowded
    for _ in range(round(2 * HELD_SECONDS / LOOK_SECONDS)):
        if (await others.take([], group=group, lease=lease)).allowed:
            break
        await asyncio.sleep(LOOK_SECONDS)
    rest = [await others.take([], group=group, lease=lease._replace(id=str(n))) for n in range(PLACES)]
    assert [taken.allowed for taken in rest] == [True] * (PLACES - 1) + [False]
    await others.close()


@pytest.mark.skipif(times(short=1, long=0) == 1, reason="the lease is long: CHAOS=long")
async def test_places_held_by_a_worker_that_is_killed_are_free_when_their_leases_end(
    ground: Ground, journal: list[Call]
) -> None:
    [key] = await ground.keys(1, concurrency=PLACES)
    async with lines_to_every_worker(ground.fleet, journal, each=PLACES + 1) as [mine, [other, *_], *_]:
        never = asyncio.Event()
        asked = [asyncio.create_task(line.ask(key, f"{n}", body_after=never)) for n, line in enumerate(mine)]
        await until_told(journal, 1)
        ground.fleet.kill(ground.fleet.holders()[await mine[0].connect()])
        held = Counter(call.code for call in await asyncio.gather(*asked))
        assert held == {"reset": PLACES, "concurrency_limit_exceeded": 1}
        assert (await other.ask(key, "crowded")).code == "concurrency_limit_exceeded"
        settings = Settings(record_deadline_seconds=DEADLINE_SECONDS)
        lease_seconds = GenerateLimits.of(settings, MemoryLimiter(clock=time.monotonic)).lease_seconds
        for n in range(round(lease_seconds / LOOK_SECONDS)):
            if (await other.ask(key, f"free {n}")).outcome == "ok":
                break
            await asyncio.sleep(LOOK_SECONDS)
        assert journal[-1].outcome == "ok"
    await ground.fleet.whole()
    assert await violations(ground.cluster, journal) == []
