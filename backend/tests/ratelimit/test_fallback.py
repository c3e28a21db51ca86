"""Limits while Redis does not decide: no call fails, shares are enforced, and limits are shared again afterwards."""

import asyncio
import re
from itertools import count
from typing import Any

import pytest
from app.ratelimit import Slot, Take
from structlog.types import EventDict
from tests.ratelimit.processes import (
    GROUP,
    LIMIT,
    OUTAGE_BEGAN,
    OUTAGE_ENDED,
    PROCESSES,
    Fault,
    Process,
    RecordingRedisLimiter,
    Start,
    count_allowed,
    events,
    until,
    until_ended,
    until_noticed,
)
from tests.ratelimit.sync_limiter import PATIENCE_SECONDS
from tests.redis_server import RedisServer


async def test_while_redis_decides_limits_are_shared_and_nothing_is_logged(
    start: Start, log_lines: list[EventDict]
) -> None:
    processes = await start()
    assert await count_allowed(processes, 40) == LIMIT.count
    assert [process.counted("limit_own_decisions") for process in processes] == [0] * PROCESSES
    assert log_lines == []


async def test_in_an_outage_every_call_is_decided_and_shares_are_enforced(
    faulty_redis: RedisServer, start: Start, fault: Fault, log_lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=fault.timeout_seconds)
    fault.begin(faulty_redis)
    allowed = await count_allowed(processes, 60) + await count_allowed(processes, 60)
    assert LIMIT.count <= allowed <= LIMIT.count + PROCESSES
    assert [process.counted("limit_outages") for process in processes] == [1] * PROCESSES
    assert [process.counted("limit_own_decisions") for process in processes] == [40] * PROCESSES
    assert events(log_lines) == [OUTAGE_BEGAN] * PROCESSES
    fault.end(faulty_redis)


async def test_in_an_outage_only_probes_are_sent_to_redis(
    faulty_redis: RedisServer,
    start: Start,
    fault: Fault,
    log_lines: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = await start(timeout_seconds=fault.timeout_seconds)
    fault.begin(faulty_redis)
    monkeypatch.setattr("app.ratelimit.redis._CONNECT_SECONDS", 0.1)
    await until_noticed(processes)
    sent = [process.shared.groups.count(GROUP) for process in processes]
    probes = sum(process.shared.probes for process in processes)
    while sum(process.shared.probes for process in processes) < probes + 3 * PROCESSES:
        await count_allowed(processes, 100)
        for process in processes:
            await process.give_back()
            process.limiter.release(Slot("key_ada", 1, 30, "none"), group=GROUP)
        await asyncio.sleep(0.01)
    assert [process.shared.groups.count(GROUP) for process in processes] == sent
    assert events(log_lines) == [OUTAGE_BEGAN] * PROCESSES
    fault.end(faulty_redis)


async def test_after_an_outage_limits_are_shared_again(
    faulty_redis: RedisServer, start: Start, fault: Fault, log_lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=fault.timeout_seconds)
    fault.begin(faulty_redis)
    await until_noticed(processes)
    fault.end(faulty_redis)
    await until_ended(log_lines)
    decided = [process.counted("limit_own_decisions") for process in processes]
    assert await count_allowed(processes, 60, "key_new") == LIMIT.count
    assert [process.counted("limit_own_decisions") for process in processes] == decided
    assert sorted(events(log_lines)) == [OUTAGE_BEGAN] * PROCESSES + [OUTAGE_ENDED] * PROCESSES


async def test_no_call_fails_while_an_outage_begins_and_ends(
    faulty_redis: RedisServer, start: Start, fault: Fault, log_lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=fault.timeout_seconds)
    numbers, over = count(), asyncio.Event()

    async def call(process: Process) -> None:
        while not over.is_set():
            slot = Slot("key_ada", 5, 30, str(next(numbers)))
            result = await process.take(f"key_{next(numbers) % 7}", slot=slot)
            if result.allowed:
                await process.give_back()
            process.limiter.release(slot, group=GROUP)
            await asyncio.sleep(0)

    calls = [asyncio.create_task(call(process)) for process in processes for _ in range(5)]
    await until(lambda: next(numbers) > 100)
    fault.begin(faulty_redis)
    await until(lambda: events(log_lines).count(OUTAGE_BEGAN) >= PROCESSES)
    fault.end(faulty_redis)
    await until_ended(log_lines)
    over.set()
    await asyncio.gather(*calls)


async def test_a_redis_that_lost_its_data_and_script_causes_no_outage(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict]
) -> None:
    processes = await start()
    for _ in range(3):
        assert await count_allowed(processes, 40) == LIMIT.count
        faulty_redis.command("FLUSHALL")
        faulty_redis.command("SCRIPT", "FLUSH")
    assert log_lines == []


async def test_repeated_outages_give_no_new_share_each_time(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict]
) -> None:
    processes = await start()
    allowed = []
    for _ in range(3):
        faulty_redis.command("CONFIG", "SET", "maxmemory", "1")
        allowed.append(await count_allowed(processes, 60))
        faulty_redis.command("CONFIG", "SET", "maxmemory", "0")
        await until_ended(log_lines)
    assert LIMIT.count <= allowed[0] <= LIMIT.count + PROCESSES
    assert allowed[1:] == [0, 0]


async def test_no_kind_of_call_raises_when_it_is_the_first_of_an_outage(
    faulty_redis: RedisServer, start: Start, fault: Fault, log_lines: list[EventDict]
) -> None:
    [taking, giving, releasing] = await start(timeout_seconds=fault.timeout_seconds)
    await giving.take()
    fault.begin(faulty_redis)
    releasing.limiter.release(Slot("key_ada", 1, 30, "none"), group=GROUP)
    await asyncio.gather(taking.take(), giving.give_back())
    assert (await releasing.take()).allowed
    assert events(log_lines) == [OUTAGE_BEGAN] * PROCESSES
    fault.end(faulty_redis)


async def test_units_given_back_in_an_outage_can_be_taken_again(faulty_redis: RedisServer, start: Start) -> None:
    processes = await start()
    faulty_redis.stop()
    allowed = await count_allowed(processes, 60)
    await processes[0].give_back()
    assert await count_allowed(processes, 60) == 1
    await processes[0].limiter.give_back([Take("key", "nobody", LIMIT)], group=GROUP)
    assert await count_allowed(processes, 60, "nobody") == allowed


async def test_a_process_that_starts_in_an_outage_enforces_its_share_and_shares_later(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict]
) -> None:
    faulty_redis.stop()
    processes = await start()
    assert events(log_lines) == [OUTAGE_BEGAN] * PROCESSES
    assert LIMIT.count <= await count_allowed(processes, 60) <= LIMIT.count + PROCESSES
    assert [process.shared.groups.count(GROUP) for process in processes] == [0] * PROCESSES
    faulty_redis.start()
    await until_ended(log_lines)
    assert await count_allowed(processes, 60) == LIMIT.count


async def test_an_unexpected_error_of_a_probe_does_not_end_the_probing(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    [process, *_others] = await start()
    faulty_redis.stop()
    await process.take()
    errors = []

    async def broken(_limiter: RecordingRedisLimiter) -> None:
        errors.append("unexpected")
        raise RuntimeError("unexpected")

    with monkeypatch.context() as patch:
        patch.setattr(RecordingRedisLimiter, "connect", broken)
        await until(lambda: bool(errors))
    faulty_redis.start()
    await until_ended(log_lines)
    assert (await process.take("key_new")).decisions[0].remaining == LIMIT.count - 1


def _limiter_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of limiters and of their client; other tests have an application in this event loop."""
    return {task for task in asyncio.all_tasks() if re.search(r"/app/ratelimit/|/redis/", repr(task))}


async def test_closing_in_an_outage_ends_and_leaves_no_task(
    faulty_redis: RedisServer, start: Start, fault: Fault
) -> None:
    before = _limiter_tasks()
    processes = await start(timeout_seconds=fault.timeout_seconds)
    fault.begin(faulty_redis)
    await until_noticed(processes)
    assert not _limiter_tasks() <= before
    for process in processes:
        await asyncio.wait_for(process.limiter.close(), PATIENCE_SECONDS)
    await until(lambda: _limiter_tasks() <= before)
    sent = [len(process.shared.groups) for process in processes]
    fault.end(faulty_redis)
    assert [len(process.shared.groups) for process in processes] == sent
