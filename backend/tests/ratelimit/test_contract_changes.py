"""What every source of limits promises when a limit or the clock is changed meanwhile."""

import pytest
from app.ratelimit import MICROSECONDS, Limit
from hypothesis import given
from hypothesis import strategies as st
from tests.ratelimit.sources import REPRODUCIBLY, NewSource, Source

LIMITS = st.builds(Limit, st.integers(min_value=1, max_value=20), st.sampled_from((1, 60, 3600)))
MOVES = st.integers(min_value=-7200 * MICROSECONDS, max_value=7200 * MICROSECONDS)
DAY = 86_400


def _empty(source: Source, limit: Limit) -> None:
    while source.take_one(limit).allowed:
        pass


def test_a_narrower_limit_leaves_what_it_alone_would_have_left(source: Source) -> None:
    for _ in range(2):
        source.take_one(Limit(10, 60))
    assert source.take_one(Limit(5, 60)).remaining == 3


def test_a_limit_with_more_units_gives_more_at_once(source: Source) -> None:
    _empty(source, Limit(5, 60))
    assert source.take_one(Limit(10, 120)).remaining == 4


@pytest.mark.parametrize("limit", [Limit(2, 60), Limit(10, 60), Limit(1000, 1)], ids=["narrower", "as wide", "wider"])
def test_whoever_gets_another_limit_waits_no_longer_than_for_its_empty_bucket(source: Source, limit: Limit) -> None:
    _empty(source, Limit(10, 3600))
    refused = source.take_one(limit)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after_seconds == limit.interval / MICROSECONDS
    assert refused.reset_seconds == limit.depth / MICROSECONDS


def test_whoever_gets_a_wider_limit_is_let_in_after_the_wait_that_is_told(source: Source) -> None:
    _empty(source, Limit(10, 3600))
    wider = Limit(10, 60)
    source.clock.wait(source.take_one(wider).retry_after_seconds)
    assert source.take_one(wider).allowed


def test_whoever_gets_a_wider_limit_has_all_of_it_after_the_reset_that_is_told(source: Source) -> None:
    _empty(source, Limit(10, 3600))
    wider = Limit(10, 60)
    source.clock.wait(source.take_one(wider).reset_seconds)
    assert source.take_one(wider).remaining == 9


def test_a_clock_that_goes_back_never_tells_less_than_nothing(source: Source) -> None:
    limit = Limit(3, 60)
    source.take_one(limit)
    source.clock.wait(-300)
    decision = source.take_one(limit)
    assert (decision.allowed, decision.remaining) == (False, 0)


@pytest.mark.parametrize("seconds", [1, 60, DAY])
def test_a_clock_that_goes_back_makes_nobody_wait_longer_than_for_an_empty_bucket(source: Source, seconds: int) -> None:
    source.clock.wait(2 * DAY)
    limit = Limit(3, 60)
    _empty(source, limit)
    source.clock.wait(-seconds)
    refused = source.take_one(limit)
    assert (refused.retry_after_seconds, refused.reset_seconds) == (20, 60)
    source.clock.wait(20)
    assert source.take_one(limit).allowed


def test_a_clock_that_is_put_right_gives_nothing_away(source: Source) -> None:
    limit = Limit(3, 60)
    _empty(source, limit)
    for seconds in (-5, 5) * 3:
        source.clock.wait(seconds)
        assert not source.take_one(limit).allowed


@REPRODUCIBLY
@given(steps=st.lists(st.tuples(MOVES, LIMITS), min_size=1, max_size=20), data=st.data())
def test_waiting_as_told_is_enough_whatever_has_happened_before(
    new_source: NewSource, steps: list[tuple[int, Limit]], data: st.DataObject
) -> None:
    source = new_source()
    source.clock.wait(2 * DAY)
    for move, limit in steps:
        source.clock.microseconds += move
        decision = source.take_one(limit)
    if not decision.allowed:
        assert decision.retry_after_seconds <= limit.interval / MICROSECONDS
        tries = data.draw(st.integers(min_value=0, max_value=3))
        for _ in range(tries):
            source.clock.wait(decision.retry_after_seconds / 4)
            assert not source.take_one(limit).allowed
            decision = source.take_one(limit)
        source.clock.wait(decision.retry_after_seconds)
        assert source.take_one(limit).allowed
