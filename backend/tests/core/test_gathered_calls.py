"""Calls that are made for many callers at a time."""

import asyncio
from collections.abc import Sequence

import pytest
from app.core.gathered_calls import GatheredCalls


async def test_one_call_answers_all_who_asked_while_the_one_before_was_under_way() -> None:
    batches, gate = list[Sequence[int]](), asyncio.Event()

    async def square(numbers: Sequence[int]) -> Sequence[int]:
        batches.append(list(numbers))
        await gate.wait()
        if 6 in numbers:
            raise ZeroDivisionError
        return [each**2 for each in numbers]

    calls = GatheredCalls(square, most=3)
    asked = [asyncio.create_task(calls.ask(0))]
    await asyncio.sleep(0.001)
    asked += [asyncio.create_task(calls.ask(each)) for each in range(1, 7)]
    await asyncio.sleep(0.001)
    assert batches == [[0]], "one at a time"
    asked[2].cancel()
    gate.set()
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert batches == [[0], [1, 2, 3], [4, 5, 6]]
    assert [done[0], done[1], done[3]] == [0, 1, 9]
    assert isinstance(done[2], asyncio.CancelledError), "its batch goes on for the others"
    assert {type(each) for each in done[4:]} == {ZeroDivisionError}, "of that batch alone"
    with pytest.raises(ZeroDivisionError):
        await calls.ask(6)
    assert await calls.ask(7) == 49
