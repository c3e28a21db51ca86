"""The pool of threads for blocking work: its bounded queue, and its low priority."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from app.core.errors import Unavailable
from app.core.pool import BoundedPool

SECONDS = 30  # longer than any step here takes unless it hangs


class Gate:
    """Work that reports its start, and ends when the gate is opened."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def work(self) -> str:
        self.begun.set()
        assert self.over.wait(SECONDS)
        return "done"

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, SECONDS)


@pytest.fixture
def pool() -> Iterator[BoundedPool]:
    """A pool of one thread with a queue of one."""
    pool = BoundedPool(threads=1, queue_max=1, name="test")
    yield pool
    pool.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.over.set()


def _fail() -> None:
    raise ZeroDivisionError


async def _assert_full(pool: BoundedPool) -> None:
    with pytest.raises(Unavailable) as refused:
        await pool.run(_fail)
    assert refused.value.headers == {"Retry-After": "1"}


async def _settle() -> None:
    # A callback of the event loop frees the slot: it has run after two turns.
    for _ in range(2):
        await asyncio.sleep(0)


async def test_the_result_comes_from_another_thread(pool: BoundedPool) -> None:
    assert await pool.run(threading.get_ident) != threading.get_ident()


async def test_an_error_reaches_the_caller_and_frees_the_slot(pool: BoundedPool) -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            await pool.run(_fail)


async def test_work_is_refused_when_the_queue_is_full_and_never_runs(pool: BoundedPool, gate: Gate) -> None:
    ran: list[str] = []
    running = asyncio.ensure_future(pool.run(gate.work))
    await gate.until_begun()
    waiting = asyncio.ensure_future(pool.run(partial(ran.append, "waiting")))
    await _settle()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await pool.run(partial(ran.append, "refused"))
    gate.over.set()
    assert await running == "done"
    await waiting
    assert ran == ["waiting"]
    assert await pool.run(str) == ""


async def test_of_many_parallel_calls_only_as_many_run_as_there_are_slots(gate: Gate) -> None:
    pool = BoundedPool(threads=2, queue_max=3, name="test")
    calls = [asyncio.ensure_future(pool.run(gate.work)) for _ in range(20)]
    await gate.until_begun()
    gate.over.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes.count("done") == 5
    assert len([each for each in outcomes if isinstance(each, Unavailable)]) == 15
    pool.close()


async def test_a_slot_is_freed_when_the_work_has_ended_and_not_when_its_caller_is_cancelled(
    pool: BoundedPool, gate: Gate
) -> None:
    left = asyncio.ensure_future(pool.run(gate.work))
    await gate.until_begun()
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    waiting = asyncio.ensure_future(pool.run(str))
    await _settle()
    await _assert_full(pool)
    gate.over.set()
    assert await waiting == ""
    assert [await pool.run(str) for _ in range(3)] == [""] * 3


async def _ends_well(pool: BoundedPool, gate: Gate) -> None:
    gate.over.set()
    assert await pool.run(gate.work) == "done"


async def _fails(pool: BoundedPool, _gate: Gate) -> None:
    with pytest.raises(ZeroDivisionError):
        await pool.run(_fail)


async def _is_cancelled_before_it_begins(pool: BoundedPool, gate: Gate) -> None:
    running = asyncio.ensure_future(pool.run(gate.work))
    await gate.until_begun()
    await _cancelled(pool.run(_fail))
    gate.over.set()
    assert await running == "done"


async def _is_cancelled_while_it_runs(pool: BoundedPool, gate: Gate) -> None:
    running = asyncio.ensure_future(pool.run(gate.work))
    await gate.until_begun()
    running.cancel()
    waiting = asyncio.ensure_future(pool.run(str))
    await _settle()
    await _assert_full(pool)
    gate.over.set()
    await waiting


async def _cancelled(run: Coroutine[Any, Any, object]) -> None:
    task = asyncio.ensure_future(run)
    await _settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "spend",
    [_ends_well, _fails, _is_cancelled_before_it_begins, _is_cancelled_while_it_runs],
    ids=lambda each: each.__name__,
)
async def test_a_place_is_given_back_exactly_once(
    pool: BoundedPool, spend: Callable[[BoundedPool, Gate], Awaitable[None]]
) -> None:
    for _ in range(3):
        await spend(pool, Gate())
        await _settle()
    gate = Gate()
    calls = [asyncio.ensure_future(pool.run(gate.work)) for _ in range(2)]
    await _settle()
    await _assert_full(pool)
    gate.over.set()
    assert await asyncio.gather(*calls) == ["done"] * 2


async def test_who_leaves_the_queue_makes_room_and_its_work_never_runs(pool: BoundedPool, gate: Gate) -> None:
    ran: list[str] = []
    running = asyncio.ensure_future(pool.run(gate.work))
    await gate.until_begun()
    left = asyncio.ensure_future(pool.run(partial(ran.append, "left")))
    await _settle()
    await _assert_full(pool)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    await _settle()
    stayed = asyncio.ensure_future(pool.run(partial(ran.append, "stayed")))
    await _settle()
    gate.over.set()
    assert await running == "done"
    await stayed
    assert ran == ["stayed"]


@pytest.mark.parametrize("asked", [0, 5, 10])
@pytest.mark.parametrize("own", [0, 15])
def test_its_threads_give_way_as_asked_and_the_event_loop_does_not(own: int, asked: int) -> None:
    def as_a_process_of_that_niceness() -> tuple[int, int]:
        _be_nice(own)
        return asyncio.run(_niceness_of_a_pool(asked)), _niceness()

    before = _niceness()
    with ThreadPoolExecutor(1) as executor:
        in_pool, in_loop = executor.submit(as_a_process_of_that_niceness).result(SECONDS)
    assert in_loop == (max(own, before) if sys.platform == "linux" else before)
    assert in_pool == (max(asked, in_loop) if sys.platform == "linux" else before)


async def _niceness_of_a_pool(asked: int) -> int:
    pool = BoundedPool(threads=1, queue_max=1, name="test", niceness=asked)
    niceness = await pool.run(_niceness)
    pool.close()
    return niceness


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id() if sys.platform == "linux" else 0)


def _be_nice(niceness: int) -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(niceness, _niceness()))


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(1, 1, 1), (2, 1, 1), (8, 1, 7), (8, 2, 3), (8, 7, 1), (8, 64, 1), (None, 1, 1)]
)
async def test_the_threads_of_all_processes_together_leave_a_core_to_the_event_loops(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, processes: int, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    pool, gate = BoundedPool.for_cores_left(processes=processes, queue_max=1, name="test"), Gate()
    begun = threading.Semaphore(0)

    def work() -> str:
        begun.release()
        return gate.work()

    calls = [asyncio.ensure_future(pool.run(work)) for _ in range(threads + 1)]
    await _settle()
    await _assert_full(pool)
    for _ in range(threads):
        assert await asyncio.to_thread(begun.acquire, timeout=SECONDS)
    assert not begun.acquire(blocking=False), "no more threads run"
    gate.over.set()
    assert await asyncio.gather(*calls) == ["done"] * (threads + 1)
    pool.close()


async def test_closing_a_pool_finishes_running_work_and_drops_queued_work(gate: Gate) -> None:
    pool, ran = BoundedPool(threads=1, queue_max=1, name="test"), list[str]()
    running = asyncio.ensure_future(pool.run(gate.work))
    await gate.until_begun()
    waiting = asyncio.ensure_future(pool.run(partial(ran.append, "waiting")))
    await _settle()
    closing = asyncio.ensure_future(asyncio.to_thread(pool.close))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.over.set()
    assert await running == "done"
    await closing
    assert ran == []
