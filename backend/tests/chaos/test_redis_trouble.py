"""Redis in trouble under traffic: nobody meets an error, limits hold by shares, and are shared again by themselves."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import pytest
from tests.chaos.ground import Ground
from tests.chaos.load import Call, Line, Traffic, lines_to_every_worker
from tests.chaos.verify import violations
from tests.harness import Key
from tests.redis_server import RedisServer

WORKERS = 4
LIMIT = 10  # an hour: nothing comes back while a test runs
SHARES = 12  # each worker's is a quarter, rounded up

LINES = 5  # to each worker
PAUSE_SECONDS = 0.05
RETURN_SECONDS, LOOK_SECONDS = 5, 0.25


@dataclass(frozen=True)
class Trouble:
    """How a Redis gets into it and out of it, and how many pass meanwhile."""

    name: str
    begin: Callable[[RedisServer], None]
    end: Callable[[RedisServer], None]
    pass_meanwhile: int = SHARES
    pass_afterwards: int = LIMIT
    """With the same key: what workers decided by themselves is not in Redis."""


def saying(*commands: str) -> Callable[[RedisServer], None]:
    def say(redis: RedisServer) -> None:
        for command in commands:
            assert redis.command(*command.split()) == "OK"

    return say


TROUBLES = [
    Trouble("stopped", RedisServer.stop, RedisServer.start),
    Trouble("frozen", RedisServer.freeze, RedisServer.thaw),
    Trouble("read-only", saying("REPLICAOF 127.0.0.1 1"), saying("REPLICAOF NO ONE")),
    Trouble("out of memory", saying("CONFIG SET maxmemory 1"), saying("CONFIG SET maxmemory 0")),
    Trouble("flushed", saying("FLUSHALL", "SCRIPT FLUSH"), saying(), LIMIT, 0),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
async def test_with_redis_in_trouble_callers_meet_their_limits_and_nothing_else(
    ground: Ground, journal: list[Call], trouble: Trouble
) -> None:
    wide = await ground.keys(4)
    key, *fresh = await ground.keys(1 + round(RETURN_SECONDS / LOOK_SECONDS), limit=f"{LIMIT}/hour")
    traffic = Traffic(ground.fleet.port, journal, wide, lines=1, pause_seconds=PAUSE_SECONDS)
    async with lines_to_every_worker(ground.fleet, journal, each=LINES) as lines, traffic.flowing():
        assert len(lines) == WORKERS
        everyone = list(chain(*lines))
        assert await passed(everyone, wide[0], "before", presses=3) == len(everyone) * 3
        await asyncio.to_thread(trouble.begin, ground.redis)
        try:
            assert await passed(everyone, key, "meanwhile", presses=15) == trouble.pass_meanwhile <= LIMIT + WORKERS
        finally:
            await asyncio.to_thread(trouble.end, ground.redis)
        await shared_again(everyone, fresh)
        assert await passed(everyone, key, "afterwards", presses=3) == trouble.pass_afterwards
    assert {call.code for call in journal} == {"", "rate_limit_exceeded"}
    assert {call.status for call in journal if call.key_id in {each.id for each in wide}} == {200}
    assert await violations(ground.cluster, journal) == []


async def passed(lines: Sequence[Line], key: Key, name: str, *, presses: int) -> int:
    """How many of all calls, some on each line, were 200."""

    async def press(number: int, line: Line) -> int:
        count = 0
        for n in range(presses):
            count += (await line.ask(key, f"{name} {number} {n}")).status == 200
            await asyncio.sleep(PAUSE_SECONDS)
        return count

    return sum(await asyncio.gather(*(press(*each) for each in enumerate(lines))))


async def shared_again(lines: Sequence[Line], keys: Sequence[Key]) -> None:
    """Returns once all workers together let exactly a limit's worth through: a worker by itself would add its share."""
    counts = []
    for key in keys:
        counts.append(await passed(lines, key, "again", presses=5))
        if counts[-1] == LIMIT:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"limits are not shared again: {counts}")
