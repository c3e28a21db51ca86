"""Calls that are made once: their results, their errors, and those who leave."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from app.core.errors import Unavailable
from app.core.shared_calls import SharedCalls


class Work:
    """A call that ends once it is told to, by its result or its error."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            return await asyncio.shield(self.outcome)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_is_made_once_for_all_who_ask_meanwhile_and_again_for_who_asks_later() -> None:
    calls, work = SharedCalls[str](), Work()
    asked = [asyncio.create_task(calls.join("a", work, group=str(each))) for each in range(10)]
    other = asyncio.create_task(calls.join("b", work))
    await _settle()
    assert work.begun == 2, "one for each name"
    work.outcome.set_result("done")
    assert await asyncio.gather(*asked, other) == ["done"] * 11
    assert await calls.join("a", work) == "done"
    assert work.begun == 3


async def test_an_error_reaches_all_who_wait() -> None:
    calls, work = SharedCalls[str](), Work()
    asked = [asyncio.create_task(calls.join("a", work)) for _ in range(3)]
    await _settle()
    work.outcome.set_exception(ZeroDivisionError())
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in results] == [ZeroDivisionError] * 3


async def test_a_call_goes_on_while_anybody_waits_and_is_cancelled_when_nobody_does() -> None:
    calls, work = SharedCalls[str](), Work()
    asked = [asyncio.create_task(calls.join("a", work)) for _ in range(3)]
    await _settle()
    for each in asked:
        assert work.cancelled == 0
        each.cancel()
        await _settle()
    assert (work.begun, work.cancelled) == (1, 1)
    again = asyncio.create_task(calls.join("a", work))
    await _settle()
    work.outcome.set_result("done")
    assert await again == "done", "nobody joins a call that was cancelled"


async def test_a_call_that_was_refused_to_another_group_is_made_by_the_own() -> None:
    calls, refused, work = SharedCalls[str](), Work(), Work()
    work.outcome.set_result("done")
    theirs = [asyncio.create_task(calls.join("a", refused, group="crowd")) for _ in range(3)]
    await _settle()
    ours = asyncio.create_task(calls.join("a", work, group="ours"))
    await _settle()
    refused.outcome.set_exception(Unavailable())
    assert await ours == "done"
    for each in theirs:
        with pytest.raises(Unavailable):
            await each
    assert (refused.begun, work.begun) == (1, 1)


class EventLoopStuckError(BaseException):
    """The event loop has not turned for two seconds."""


@contextmanager
def ending_a_stuck_event_loop() -> Iterator[None]:
    """Raises EventLoopStuckError wherever the program is by then: a deadline of the event loop would never come."""

    def end(*_: object) -> None:
        raise EventLoopStuckError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def test_who_joins_in_the_very_turn_in_which_another_group_is_refused_makes_a_call_of_its_own() -> None:
    calls = SharedCalls[str]()

    async def refused() -> str:
        raise Unavailable

    async def drawn() -> str:
        return "drawn"

    async def join_a_turn_later() -> str:
        await asyncio.sleep(0)
        return await calls.join("a", drawn, group="another")

    with ending_a_stuck_event_loop():
        first, second = await asyncio.gather(
            calls.join("a", refused, group="one"), join_a_turn_later(), return_exceptions=True
        )
    assert (type(first), second) == (Unavailable, "drawn")
