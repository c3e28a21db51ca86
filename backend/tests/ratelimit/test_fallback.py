"""Limits while Redis is in trouble: no call fails, shares are held, nobody waits, and all is shared again by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
import structlog
from app.ratelimit import Charge, Lease
from structlog.types import EventDict
from tests.ratelimit.processes import (
    GROUP,
    LEFT,
    LIMIT,
    PROCESSES,
    RETURNED,
    TROUBLES,
    Process,
    Trouble,
    Watched,
    events,
    takes,
    until,
)
from tests.ratelimit.sources import PATIENCE_SECONDS
from tests.redis_server import RedisServer, redis_server

Start = Callable[..., Awaitable[list[Process]]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that one test may break."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=TROUBLES)
def trouble(request: pytest.FixtureRequest) -> Trouble:
    return TROUBLES[request.param]


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[EventDict]]:
    """What is logged meanwhile."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(autouse=True)
def frequent_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ratelimit.fallback.PROBE_SECONDS", 0.02)


@pytest.fixture
async def start(server: RedisServer) -> AsyncIterator[Start]:
    """Starts processes that share what is in the server."""
    async with AsyncExitStack() as stack:

        async def started(*, timeout_seconds: float = PATIENCE_SECONDS) -> list[Process]:
            processes = [Process(Watched(server.url, timeout_seconds=timeout_seconds)) for _ in range(PROCESSES)]
            for process in processes:
                stack.push_async_callback(process.limiter.close)
                await process.limiter.open()
            return processes

        yield started


async def until_left(processes: list[Process]) -> None:
    """Once every process has noticed."""
    await takes(processes, PROCESSES, "noticing")


async def until_returned(lines: list[EventDict]) -> None:
    """Once all of them share again after each outage."""
    await until(lambda: events(lines).count(RETURNED) == events(lines).count(LEFT))


async def test_without_trouble_limits_are_shared_and_nothing_is_told(start: Start, lines: list[EventDict]) -> None:
    processes = await start()
    assert await takes(processes, 40) == LIMIT.count
    assert [process.counted("limit_own_decisions") for process in processes] == [0] * PROCESSES
    assert lines == []


async def test_in_trouble_every_call_is_decided_and_shares_are_held(
    server: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(server)
    passed = await takes(processes, 60) + await takes(processes, 60)
    assert LIMIT.count <= passed <= LIMIT.count + PROCESSES
    assert [process.counted("limit_outages") for process in processes] == [1] * PROCESSES
    assert [process.counted("limit_own_decisions") for process in processes] == [40] * PROCESSES
    assert events(lines) == [LEFT] * PROCESSES
    trouble.end(server)


async def test_once_trouble_is_known_nobody_asks_redis_but_the_probes_until_it_ends(
    server: RedisServer,
    start: Start,
    trouble: Trouble,
    lines: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(server)
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
    trouble.end(server)


async def test_after_trouble_limits_are_shared_again_by_themselves(
    server: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
) -> None:
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(server)
    await until_left(processes)
    trouble.end(server)
    await until_returned(lines)
    own = [process.counted("limit_own_decisions") for process in processes]
    assert await takes(processes, 60, "somebody new") == LIMIT.count
    assert [process.counted("limit_own_decisions") for process in processes] == own
    assert sorted(events(lines)) == [LEFT] * PROCESSES + [RETURNED] * PROCESSES


async def test_traffic_through_trouble_and_back_never_meets_an_error(
    server: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
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
    trouble.begin(server)
    await until(lambda: events(lines).count(LEFT) >= PROCESSES)
    trouble.end(server)
    await until_returned(lines)
    over.set()
    await asyncio.gather(*calls)


async def test_a_redis_that_forgot_everything_is_no_trouble(
    server: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    processes = await start()
    for _ in range(3):
        assert await takes(processes, 40) == LIMIT.count
        server.command("FLUSHALL")
        server.command("SCRIPT", "FLUSH")
    assert lines == []


async def test_a_redis_that_comes_and_goes_gives_no_new_share_each_time(
    server: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    processes = await start()
    passed = []
    for _ in range(3):
        server.command("CONFIG", "SET", "maxmemory", "1")
        passed.append(await takes(processes, 60))
        server.command("CONFIG", "SET", "maxmemory", "0")
        await until_returned(lines)
    assert LIMIT.count <= passed[0] <= LIMIT.count + PROCESSES
    assert passed[1:] == [0, 0]


async def test_whatever_is_the_first_to_meet_trouble_never_raises(
    server: RedisServer, start: Start, trouble: Trouble, lines: list[EventDict]
) -> None:
    [taking, giving, ending] = await start(timeout_seconds=trouble.timeout_seconds)
    await giving.take()
    trouble.begin(server)
    ending.limiter.end(Lease("key_ada", 1, 30, "none"), group=GROUP)
    await asyncio.gather(taking.take(), giving.give_back())
    assert (await ending.take()).allowed
    assert events(lines) == [LEFT] * PROCESSES
    trouble.end(server)


async def test_what_a_process_gives_back_while_on_its_own_can_be_taken_again(server: RedisServer, start: Start) -> None:
    processes = await start()
    server.stop()
    passed = await takes(processes, 60)
    await processes[0].give_back()
    assert await takes(processes, 60) == 1
    await processes[0].limiter.give_back([Charge("key", "nobody", LIMIT)], group=GROUP)
    assert await takes(processes, 60, "nobody") == passed


async def test_leases_of_a_process_on_its_own_are_its_own(
    server: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    [process, *_others] = await start()
    first, second, third, fourth = (Lease("key_ada", 1, 30, str(number)) for number in range(4))
    server.stop()
    assert (await process.take(lease=first)).allowed
    assert (await process.take(lease=second)).crowded
    process.limiter.end(first, group=GROUP)
    assert (await process.take(lease=second)).allowed
    server.start()
    await until_returned(lines)
    assert (await process.take(lease=third)).allowed
    process.limiter.end(second, group=GROUP)
    assert (await process.take(lease=fourth)).crowded
    process.limiter.end(third, group=GROUP)
    assert (await process.take(lease=fourth)).allowed


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not yet noticed"])
async def test_a_lease_that_ends_in_trouble_frees_its_place_when_limits_are_shared_again(
    server: RedisServer, start: Start, lines: list[EventDict], *, noticed: bool
) -> None:
    [process, other, _] = await start()
    first, second = (Lease("key_ada", 1, 30, str(number)) for number in range(2))
    assert (await process.take(lease=first)).allowed
    TROUBLES["read-only"].begin(server)
    if noticed:
        await until_left([process, other])
    process.limiter.end(first, group=GROUP)
    await until_left([process, other])
    TROUBLES["read-only"].end(server)
    await until_returned(lines)
    await process.take("somebody else")
    assert (await other.take(lease=second)).allowed


async def test_a_lease_of_which_only_the_end_was_lost_is_ended_with_the_next_call(
    server: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    [process, other, _] = await start()
    first, second = (Lease("key_ada", 1, 30, str(number)) for number in range(2))
    assert (await process.take(lease=first)).allowed
    TROUBLES["read-only"].begin(server)
    process.limiter.end(first, group=GROUP)
    await process.shared.close()
    TROUBLES["read-only"].end(server)
    assert lines == [], "nobody noticed"
    await process.take("somebody else")
    await process.shared.close()
    assert (await other.take(lease=second)).allowed


async def test_leases_that_a_process_gave_by_itself_are_not_sent_to_redis_afterwards(
    server: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    """After a long trouble there are more of them than Redis ends in time."""
    [process, *_others] = await start()
    shared = Lease("key_ada", 1, 30, "shared")
    assert (await process.take(lease=shared)).allowed
    server.stop()
    for number in range(100):
        lease = Lease(f"key_{number}", 1, 30, str(number))
        assert (await process.take(f"key_{number}", lease=lease)).allowed
        process.limiter.end(lease, group=GROUP)
    process.limiter.end(shared, group=GROUP)
    server.start()
    await until_returned(lines)
    await process.take("somebody else")
    assert process.shared.ended == [shared.id]


async def test_a_process_that_starts_in_trouble_limits_on_its_own_and_shares_later(
    server: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    server.stop()
    processes = await start()
    assert events(lines) == [LEFT] * PROCESSES
    assert LIMIT.count <= await takes(processes, 60) <= LIMIT.count + PROCESSES
    assert [process.shared.asked.count(GROUP) for process in processes] == [0] * PROCESSES
    server.start()
    await until_returned(lines)
    assert await takes(processes, 60) == LIMIT.count


async def test_whatever_a_probe_meets_limits_are_shared_again_in_the_end(
    server: RedisServer, start: Start, lines: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    [process, *_others] = await start()
    server.stop()
    await process.take()
    met = []

    async def broken(_limiter: Watched) -> None:
        met.append("something unexpected")
        raise RuntimeError("unexpected")

    with monkeypatch.context() as patch:
        patch.setattr(Watched, "reach", broken)
        await until(lambda: bool(met))
    server.start()
    await until_returned(lines)
    assert (await process.take("somebody new")).decisions[0].remaining == LIMIT.count - 1


async def test_closing_in_trouble_comes_to_an_end_and_leaves_nothing_at_work(
    server: RedisServer, start: Start, trouble: Trouble
) -> None:
    before = asyncio.all_tasks()
    processes = await start(timeout_seconds=trouble.timeout_seconds)
    trouble.begin(server)
    await until_left(processes)
    for process in processes:
        await asyncio.wait_for(process.limiter.close(), PATIENCE_SECONDS)
    await until(lambda: asyncio.all_tasks() <= before)
    asked = [len(process.shared.asked) for process in processes]
    trouble.end(server)
    assert [len(process.shared.asked) for process in processes] == asked
