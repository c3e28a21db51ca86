"""A budget of bytes: never more than its total is held, those who wait come in order, and nothing is lost."""

import asyncio
from contextlib import ExitStack

import pytest
from app.core.byte_budget import ByteBudget, ByteShare
from app.core.errors import Unavailable
from tests.harness import BEYOND_PATIENCE_SECONDS


def waiting(share: ByteShare, count: int) -> "asyncio.Task[None]":
    return asyncio.create_task(share.wait_to_hold(count, seconds=BEYOND_PATIENCE_SECONDS))


async def turns() -> None:
    """Lets every task go on as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_share_holds_what_is_free_or_nothing_more_and_frees_it_at_its_end() -> None:
    budget = ByteBudget(10)
    with budget.share() as first, budget.share() as second:
        assert first.hold(7)
        assert not second.hold(4)
        assert second.hold(3)
        assert first.hold(2), "less than it had"
        assert second.hold(8)
        assert not first.hold(3)
    with budget.share() as third:
        assert third.hold(1000), "more than the budget counts as the whole"
        with budget.share() as fourth:
            assert not fourth.hold(1)


async def test_those_who_wait_come_in_order_and_nobody_overtakes_them() -> None:
    budget = ByteBudget(10)
    with ExitStack() as stack, budget.share() as last:
        first, second, third = [stack.enter_context(budget.share()) for _ in range(3)]
        assert first.hold(8)
        large, small = waiting(second, 9), waiting(third, 1)
        await turns()
        assert not last.hold(1), "it would be free, but others wait"
        first.hold(0)
        await turns()
        assert (large.done(), small.done()) == (True, True)
        assert not last.hold(1)


@pytest.mark.parametrize("is_free_already", [False, True])
async def test_who_gives_up_waiting_holds_nothing(*, is_free_already: bool) -> None:
    budget = ByteBudget(10)
    with budget.share() as first, budget.share() as second, budget.share() as third:
        assert first.hold(10)
        given_up, next_one = waiting(second, 10), waiting(third, 4)
        await turns()
        if is_free_already:
            first.hold(0)  # its turn comes in the same moment
        given_up.cancel()
        await turns()
        assert given_up.cancelled()
        first.hold(6)
        await turns()
        assert next_one.done()
    with budget.share() as everything:
        assert everything.hold(10)


async def test_too_long_a_wait_is_unavailable() -> None:
    budget = ByteBudget(10)
    with budget.share() as first, budget.share() as second:
        assert first.hold(5)
        with pytest.raises(Unavailable):
            await second.wait_to_hold(6, seconds=0)
        assert second.hold(5)
