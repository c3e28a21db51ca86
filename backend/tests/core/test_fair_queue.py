"""The fair queue: its bound, whose turn comes next, who has to give way, and that no slot is lost."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from app.core.errors import Unavailable
from app.core.fair_queue import FairPool, FairQueue

Turns = list[str]


class Crowd:
    """Calls of several groups on one queue, whose only slot is taken until `free` is called."""

    def __init__(self, *, waiting_max: int) -> None:
        self.turns: Turns = []
        self._queue = FairQueue(slots=1, waiting_max=waiting_max)
        self.end = asyncio.Event()

    async def take_slot(self) -> None:
        self._first = asyncio.create_task(self._hold())
        await _settle()

    async def call(self, group: str, name: str) -> "asyncio.Task[None]":
        """Starts a call of this group, which waits or was refused when this returns."""
        task = asyncio.create_task(self._take(group, name))
        await _settle()
        return task

    async def free(self) -> None:
        self.end.set()
        await self._first

    async def _hold(self) -> None:
        async with self._queue.turn("first"):
            await self.end.wait()

    async def _take(self, group: str, name: str) -> None:
        async with self._queue.turn(group):
            self.turns.append(name)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _outcomes(*calls: "asyncio.Task[None]") -> str:
    """A letter for each call: `y` if it had its turn, `n` if it was refused, `c` if it was cancelled."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    letters: dict[type, str] = {type(None): "y", Unavailable: "n", asyncio.CancelledError: "c"}
    return "".join(letters[type(each)] for each in results)


@pytest.mark.parametrize(
    ("waiting_max", "calls", "outcomes", "turns"),
    [
        pytest.param(9, "a1 a2 a3", "yyy", "a1 a2 a3", id="one group in its order"),
        pytest.param(9, "a1 a2 a3 b1 b2 c1", "yyyyyy", "a1 b1 c1 a2 b2 a3", id="groups take turns"),
        pytest.param(2, "a1 a2 a3", "yyn", "a1 a2", id="one group alone may use all places"),
        pytest.param(3, "a1 a2 a3 b1", "yyny", "a1 b1 a2", id="a newcomer takes the place of the last of the most"),
        pytest.param(4, "a1 a2 a3 a4 b1 b2 b3", "yynnyyn", "a1 b1 a2 b2", id="until both have equal shares"),
        pytest.param(2, "a1 b1 c1", "yyn", "a1 b1", id="nobody has more than the newcomer would have"),
        pytest.param(1, "a1 b1", "yn", "a1", id="one place"),
    ],
)
async def test_groups_share_turns_and_places_equally(waiting_max: int, calls: str, outcomes: str, turns: str) -> None:
    crowd = Crowd(waiting_max=waiting_max)
    await crowd.take_slot()
    started = [await crowd.call(each[0], each) for each in calls.split()]
    await crowd.free()
    assert await _outcomes(*started) == outcomes
    assert crowd.turns == turns.split()


async def test_a_group_has_no_more_slots_than_one_group_may_have_and_leaves_the_others_free() -> None:
    queue, begun = FairQueue(slots=3, waiting_max=9, slots_per_group=2), Turns()
    ends = {name: asyncio.Event() for name in ("a1", "a2", "a3", "a4", "b1", "b2")}

    async def run(name: str) -> None:
        async with queue.turn(name[0]):
            begun.append(name)
            await ends[name].wait()

    calls = []
    for name in ends:
        calls.append(asyncio.create_task(run(name)))
        await _settle()
    assert begun == ["a1", "a2", "b1"]
    for ended, following in (("b1", ["b2"]), ("b2", []), ("a2", ["a3"]), ("a1", ["a4"])):
        expected = begun + following
        ends[ended].set()
        await _settle()
        assert begun == expected
    for end in ends.values():
        end.set()
    await asyncio.gather(*calls)


async def _while_it_waits(crowd: Crowd, call: "asyncio.Task[None]") -> None:
    call.cancel()
    await _settle()
    await crowd.free()


async def _as_its_turn_comes(crowd: Crowd, call: "asyncio.Task[None]") -> None:
    crowd.end.set()
    await asyncio.sleep(0)  # the slot is handed over, and the call does not run yet
    call.cancel()
    await crowd.free()


async def _before_it_is_withdrawn(crowd: Crowd, call: "asyncio.Task[None]") -> None:
    call.cancel()
    await crowd.free()


@pytest.mark.parametrize(
    "cancel", [_while_it_waits, _as_its_turn_comes, _before_it_is_withdrawn], ids=lambda each: each.__name__
)
async def test_a_cancelled_call_has_no_turn_and_takes_none_from_others(
    cancel: Callable[[Crowd, "asyncio.Task[None]"], Awaitable[None]],
) -> None:
    crowd = Crowd(waiting_max=2)
    await crowd.take_slot()
    calls = [await crowd.call(name[0], name) for name in ("a1", "a2")]
    await cancel(crowd, calls[0])
    assert await _outcomes(*calls) == "cy"
    for name in ("b1", "b2", "b3"):
        await (await crowd.call("b", name))
    assert crowd.turns == ["a2", "b1", "b2", "b3"], "the slot is free each time"


async def test_a_call_that_leaves_gives_its_place_to_the_next() -> None:
    crowd = Crowd(waiting_max=1)
    await crowd.take_slot()
    left = await crowd.call("a", "a1")
    left.cancel()
    await _settle()
    stayed = await crowd.call("a", "a2")
    await crowd.free()
    assert await _outcomes(left, stayed) == "cy"


async def test_a_pool_runs_no_more_calls_than_it_has_threads_though_their_callers_left() -> None:
    pool, over, running = FairPool(threads=2, queue_max=4, name="test"), threading.Event(), threading.Semaphore(0)
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        running.release()
        assert over.wait(30)
        return number

    left = [asyncio.create_task(pool.run(partial(work, each))) for each in range(2)]
    for _ in left:
        assert await asyncio.to_thread(running.acquire, timeout=30)
    for each in left:
        each.cancel()
    await _settle()
    stayed = [asyncio.create_task(pool.run(partial(work, each))) for each in range(2, 8)]
    await _settle()
    assert begun == [0, 1]
    over.set()
    assert await asyncio.gather(*stayed) == [2, 3, 4, 5, 6, 7]
    pool.close()
