"""What every limiter guarantees when a limit or the clock is changed between calls."""

import pytest
from app.ratelimit import MICROSECONDS, Limit
from hypothesis import given
from hypothesis import strategies as st
from tests.ratelimit.sync_limiter import REPRODUCIBLY, NewSyncLimiter, SyncLimiter

LIMITS = st.builds(Limit, st.integers(min_value=1, max_value=20), st.sampled_from((1, 60, 3600)))
MOVES = st.integers(min_value=-7200 * MICROSECONDS, max_value=7200 * MICROSECONDS)
DAY = 86_400


def _spend_all(limiter: SyncLimiter, limit: Limit) -> None:
    while limiter.take_one(limit).allowed:
        pass


def test_a_smaller_limit_counts_the_units_taken_under_the_larger_one(limiter: SyncLimiter) -> None:
    for _ in range(2):
        limiter.take_one(Limit(10, 60))
    assert limiter.take_one(Limit(5, 60)).remaining == 3


def test_a_limit_with_more_units_allows_the_additional_ones_at_once(limiter: SyncLimiter) -> None:
    _spend_all(limiter, Limit(5, 60))
    assert limiter.take_one(Limit(10, 120)).remaining == 4


@pytest.mark.parametrize("limit", [Limit(2, 60), Limit(10, 60), Limit(1000, 1)], ids=["smaller", "faster", "larger"])
def test_after_a_change_no_caller_waits_longer_than_for_an_empty_bucket_of_the_new_limit(
    limiter: SyncLimiter, limit: Limit
) -> None:
    _spend_all(limiter, Limit(10, 3600))
    refused = limiter.take_one(limit)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after_seconds == limit.emission_interval / MICROSECONDS
    assert refused.reset_seconds == limit.burst_tolerance / MICROSECONDS


def test_after_a_change_the_next_take_is_allowed_after_retry_after(limiter: SyncLimiter) -> None:
    _spend_all(limiter, Limit(10, 3600))
    faster = Limit(10, 60)
    limiter.clock.advance(limiter.take_one(faster).retry_after_seconds)
    assert limiter.take_one(faster).allowed


def test_after_a_change_the_whole_limit_is_there_after_the_reset(limiter: SyncLimiter) -> None:
    _spend_all(limiter, Limit(10, 3600))
    faster = Limit(10, 60)
    limiter.clock.advance(limiter.take_one(faster).reset_seconds)
    assert limiter.take_one(faster).remaining == 9


def test_a_clock_set_back_never_makes_the_remaining_units_negative(limiter: SyncLimiter) -> None:
    limit = Limit(3, 60)
    limiter.take_one(limit)
    limiter.clock.advance(-300)
    decision = limiter.take_one(limit)
    assert (decision.allowed, decision.remaining) == (False, 0)


@pytest.mark.parametrize("seconds", [1, 60, DAY])
def test_after_the_clock_is_set_back_no_caller_waits_longer_than_for_an_empty_bucket(
    limiter: SyncLimiter, seconds: int
) -> None:
    limiter.clock.advance(2 * DAY)
    limit = Limit(3, 60)
    _spend_all(limiter, limit)
    limiter.clock.advance(-seconds)
    refused = limiter.take_one(limit)
    assert (refused.retry_after_seconds, refused.reset_seconds) == (20, 60)
    limiter.clock.advance(20)
    assert limiter.take_one(limit).allowed


def test_setting_the_clock_back_and_forth_adds_no_units(limiter: SyncLimiter) -> None:
    limit = Limit(3, 60)
    _spend_all(limiter, limit)
    for seconds in (-5, 5) * 3:
        limiter.clock.advance(seconds)
        assert not limiter.take_one(limit).allowed


@REPRODUCIBLY
@given(steps=st.lists(st.tuples(MOVES, LIMITS), min_size=1, max_size=20), data=st.data())
def test_retry_after_is_true_after_any_changes_of_limit_and_clock(
    new_sync_limiter: NewSyncLimiter, steps: list[tuple[int, Limit]], data: st.DataObject
) -> None:
    limiter = new_sync_limiter()
    limiter.clock.advance(2 * DAY)
    for move, limit in steps:
        limiter.clock.microseconds += move
        decision = limiter.take_one(limit)
    if not decision.allowed:
        assert decision.retry_after_seconds <= limit.emission_interval / MICROSECONDS
        for _ in range(data.draw(st.integers(min_value=0, max_value=3))):
            limiter.clock.advance(decision.retry_after_seconds / 4)
            assert not limiter.take_one(limit).allowed
            decision = limiter.take_one(limit)
        limiter.clock.advance(decision.retry_after_seconds)
        assert limiter.take_one(limit).allowed
