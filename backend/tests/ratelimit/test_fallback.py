"""Limits while Redis is in trouble: no call fails, shares are held, nobody waits, and all is shared again by itself."""

import asyncio
import re
from itertools import count
from typing import Any

import pytest
from app.ratelimit import Charge, Lease
from structlog.types import EventDict
from tests.ratelimit.processes import (
    GROUP,
    LEFT,
    LIMIT,
    PROCESSES,
    RETURNED,
    Process,
    Start,
    Trouble,
    Watched,
    events,
    takes,
    until,
    until_left,
    until_returned,
)
from tests.ratelimit.sources import PATIENCE_SECONDS
from tests.redis_server import RedisServer


async def test_without_trouble_limits_are_shared_and_nothing_is_told(start: Start, lines: list[EventDict]) -> None:
    processes = await start()
    assert await takes(processes, 40) == LIMIT.count
    assert [process.counted("limit_own_decisions") for process in processes] == [0] * PROCESSES
    assert lines == []


async def test_in_trouble_every_call_is_decided_and_shares_are_held(
    victim: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(victim)
    passed = await takes(processes, 60) + await takes(processes, 60)
    assert LIMIT.count <= passed <= LIMIT.count + PROCESSES
    assert [process.counted("limit_outages") for process in processes] == [1] * PROCESSES
    assert [process.counted("limit_own_decisions") for process in processes] == [40] * PROCESSES
    assert events(lines) == [LEFT] * PROCESSES
    trouble.end(victim)


async def test_once_trouble_is_known_nobody_asks_redis_but_the_probes_until_it_ends(
    victim: RedisServer,
    start: Start,
    trouble: Trouble,
    lines: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(victim)
    monkeypatch.setattr("app.ratelimit.redis._CONNECT_SECONDS", 0.1)
    await until_left(processes)
    asked = [process.shared.asked.count(GROUP) for process in processes]
    probes = sum(process.shared.probes for process in processes)
    while sum(process.shared.probes for process in processes) < probes + 3 * PROCESSES:
        await takes(processes, 100)
        for process in processes:
            await process.give_back()
            process.limiter.end(Lease("key_ada", 1, 30, "none"), group=GROUP)
        await asyncio.sleep(0.01)
    assert [process.shared.asked.count(GROUP) for process in processes] == asked
    assert events(lines) == [LEFT] * PROCESSES
    trouble.end(victim)


async def test_after_trouble_limits_are_shared_again_by_themselves(
    victim: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(victim)
    await until_left(processes)
    trouble.end(victim)
    await until_returned(lines)
    own = [process.counted("limit_own_decisions") for process in processes]
    assert await takes(processes, 60, "somebody new") == LIMIT.count
    assert [process.counted("limit_own_decisions") for process in processes] == own
    assert sorted(events(lines)) == [LEFT] * PROCESSES + [RETURNED] * PROCESSES


async def test_traffic_through_trouble_and_back_never_meets_an_error(
    victim: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    numbers, over = count(), asyncio.Event()

    async def call(process: Process) -> None:
        while not over.is_set():
            lease = Lease("key_ada", 5, 30, str(next(numbers)))
            taken = await process.take(f"key_{next(numbers) % 7}", lease=lease)
            if taken.allowed:
                await process.give_back()
            process.limiter.end(lease, group=GROUP)
            await asyncio.sleep(0)

    calls = [asyncio.create_task(call(process)) for process in processes for _ in range(5)]
    await until(lambda: next(numbers) > 100)
    trouble.begin(victim)
    await until(lambda: events(lines).count(LEFT) >= PROCESSES)
    trouble.end(victim)
    await until_returned(lines)
    over.set()
    await asyncio.gather(*calls)


async def test_a_redis_that_forgot_everything_is_no_trouble(
    victim: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    processes = await start()
    for _ in range(3):
        assert await takes(processes, 40) == LIMIT.count
        victim.command("FLUSHALL")
        victim.command("SCRIPT", "FLUSH")
    assert lines == []


async def test_a_redis_that_comes_and_goes_gives_no_new_share_each_time(
    victim: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    processes = await start()
    passed = []
    for _ in range(3):
        victim.command("CONFIG", "SET", "maxmemory", "1")
        passed.append(await takes(processes, 60))
        victim.command("CONFIG", "SET", "maxmemory", "0")
        await until_returned(lines)
    assert LIMIT.count <= passed[0] <= LIMIT.count + PROCESSES
    assert passed[1:] == [0, 0]


async def test_whatever_is_the_first_to_meet_trouble_never_raises(
    victim: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
) -> None:
    [taking, giving, ending] = await start(timeout_seconds=trouble.timeout_seconds)
    await giving.take()
    trouble.begin(victim)
    ending.limiter.end(Lease("key_ada", 1, 30, "none"), group=GROUP)
    await asyncio.gather(taking.take(), giving.give_back())
    assert (await ending.take()).allowed
    assert events(lines) == [LEFT] * PROCESSES
    trouble.end(victim)


async def test_what_a_process_gives_back_while_on_its_own_can_be_taken_again(victim: RedisServer, start: Start) -> None:
    processes = await start()
    victim.stop()
    passed = await takes(processes, 60)
    await processes[0].give_back()
    assert await takes(processes, 60) == 1
    await processes[0].limiter.give_back([Charge("key", "nobody", LIMIT)], group=GROUP)
    assert await takes(processes, 60, "nobody") == passed


async def test_a_process_that_starts_in_trouble_limits_on_its_own_and_shares_later(
    victim: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    victim.stop()
    processes = await start()
    assert events(lines) == [LEFT] * PROCESSES
    assert LIMIT.count <= await takes(processes, 60) <= LIMIT.count + PROCESSES
    assert [process.shared.asked.count(GROUP) for process in processes] == [0] * PROCESSES
    victim.start()
    await until_returned(lines)
    assert await takes(processes, 60) == LIMIT.count


async def test_whatever_a_probe_meets_limits_are_shared_again_in_the_end(
    victim: RedisServer, start: Start, lines: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    [process, *_others] = await start()
    victim.stop()
    await process.take()
    met = []

    async def broken(_limiter: Watched) -> None:
        met.append("something unexpected")
        raise RuntimeError("unexpected")

    with monkeypatch.context() as patch:
        patch.setattr(Watched, "reach", broken)
        await until(lambda: bool(met))
    victim.start()
    await until_returned(lines)
    assert (await process.take("somebody new")).decisions[0].remaining == LIMIT.count - 1


def _at_work() -> set[asyncio.Task[Any]]:
    """The tasks of limiters and of their client; other tests have an application in this event loop."""
    return {task for task in asyncio.all_tasks() if re.search(r"/app/ratelimit/|/redis/", repr(task))}


async def test_closing_in_trouble_comes_to_an_end_and_leaves_nothing_at_work(
    victim: RedisServer, start: Start, trouble: Trouble
) -> None:
    before = _at_work()
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(victim)
    await until_left(processes)
    assert not _at_work() <= before
    for process in processes:
        await asyncio.wait_for(process.limiter.close(), PATIENCE_SECONDS)
    await until(lambda: _at_work() <= before)
    asked = [len(process.shared.asked) for process in processes]
    trouble.end(victim)
    assert [len(process.shared.asked) for process in processes] == asked
