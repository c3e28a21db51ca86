"""The arithmetic of limits, and the memory that keeps it."""

import asyncio
from dataclasses import dataclass

import pytest
from app.ratelimit import Charge, Decision, Limit
from app.ratelimit.memory import MemoryLimiter
from hypothesis import given
from hypothesis import strategies as st

LIMITS = st.builds(Limit, st.integers(min_value=1, max_value=50), st.sampled_from((1, 60, 3600, 86_400)))
PAUSES = st.lists(st.integers(min_value=0, max_value=3_000_000), min_size=1, max_size=120)


@dataclass
class Clock:
    """Stands still until it is moved."""

    microseconds: int = 1_000_000_000

    def __call__(self) -> float:
        return self.microseconds / 1_000_000


def take(limiter: MemoryLimiter, limit: Limit, *, name: str = "key", who: str = "ada") -> Decision:
    return asyncio.run(limiter.take([Charge(name, who, limit)]))[0]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("600/minute", Limit(600, 60)),
        ("1/second", Limit(1, 1)),
        ("30/hour", Limit(30, 3600)),
        ("9/day", Limit(9, 86_400)),
    ],
)
def test_a_limit_is_written_as_count_and_window(text: str, limit: Limit) -> None:
    assert Limit.parse(text) == limit


@pytest.mark.parametrize(
    "text", ["", "600", "0/minute", "-1/minute", "1.5/minute", "600/min", "6OO/minute", "1/minute "]
)
def test_anything_else_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="must look like 600/minute"):
        Limit.parse(text)


def test_the_whole_count_can_be_taken_at_once_and_no_more() -> None:
    limiter = MemoryLimiter(clock=Clock())
    decisions = [take(limiter, Limit(10, 60)) for _ in range(12)]
    assert [decision.allowed for decision in decisions] == [True] * 10 + [False] * 2
    assert [decision.remaining for decision in decisions] == [*range(9, -1, -1), 0, 0]


def test_a_refused_unit_is_not_taken() -> None:
    clock, limit = Clock(), Limit(1, 60)
    limiter = MemoryLimiter(clock=clock)
    take(limiter, limit)
    waits = [take(limiter, limit).retry_after_seconds for _ in range(5)]
    assert waits == [60] * 5


@given(limit=LIMITS, pauses=PAUSES)
def test_in_every_span_no_more_pass_than_burst_and_rate_allow(limit: Limit, pauses: list[int]) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    passed: list[int] = []
    for pause in pauses:
        clock.microseconds += pause
        if take(limiter, limit).allowed:
            passed.append(clock.microseconds)
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert (last - first + 1 - limit.count) * limit.interval <= end - begin


@given(limit=LIMITS, pauses=PAUSES)
def test_waiting_as_told_is_never_refused_again(limit: Limit, pauses: list[int]) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    for pause in pauses:
        clock.microseconds += pause
        decision = take(limiter, limit)
        if not decision.allowed:
            clock.microseconds += round(decision.retry_after_seconds * 1_000_000)
            assert take(limiter, limit).allowed


@given(limit=LIMITS, pauses=PAUSES)
def test_what_is_told_to_remain_is_there_and_not_more(limit: Limit, pauses: list[int]) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    for pause in pauses:
        clock.microseconds += pause
        remaining = take(limiter, limit).remaining
    assert sum(take(limiter, limit).allowed for _ in range(remaining + 1)) == remaining


def test_after_the_reset_the_bucket_is_full() -> None:
    clock, limit = Clock(), Limit(7, 60)
    limiter = MemoryLimiter(clock=clock)
    for _ in range(3):
        reset_seconds = take(limiter, limit).reset_seconds
    clock.microseconds += round(reset_seconds * 1_000_000)
    assert take(limiter, limit).remaining == 6


def test_a_refusal_by_one_limit_takes_nothing_of_the_others() -> None:
    limiter = MemoryLimiter(clock=Clock())
    wide, narrow = Charge("account", "ada", Limit(10, 60)), Charge("key", "first", Limit(1, 60))
    outcomes = [asyncio.run(limiter.take([wide, narrow])) for _ in range(5)]
    assert [all(decision.allowed for decision in outcome) for outcome in outcomes] == [True, False, False, False, False]
    assert take(limiter, Limit(10, 60), name="account").remaining == 8


def test_callers_and_names_have_buckets_of_their_own() -> None:
    limiter, limit = MemoryLimiter(clock=Clock()), Limit(1, 60)
    assert take(limiter, limit, who="ada").allowed
    assert take(limiter, limit, who="bob").allowed
    assert take(limiter, limit, name="login", who="ada").allowed
    assert not take(limiter, limit, who="ada").allowed


def test_what_is_given_back_can_be_taken_again() -> None:
    limiter, limit = MemoryLimiter(clock=Clock()), Limit(2, 60)
    for _ in range(10):
        assert take(limiter, limit).allowed
        asyncio.run(limiter.give_back([Charge("key", "ada", limit)]))
    assert take(limiter, limit).remaining == 1


def test_giving_back_what_was_never_taken_gains_nothing() -> None:
    limiter, limit = MemoryLimiter(clock=Clock()), Limit(2, 60)
    for _ in range(10):
        asyncio.run(limiter.give_back([Charge("key", "ada", limit)]))
    assert [take(limiter, limit).allowed for _ in range(3)] == [True, True, False]


def test_memory_is_bounded_and_the_longest_unused_bucket_goes_first() -> None:
    limiter, limit = MemoryLimiter(clock=Clock(), buckets_max=3), Limit(1, 60)
    for who in ("ada", "bob", "cyd", "dan"):
        assert take(limiter, limit, who=who).allowed
    assert not take(limiter, limit, who="bob").allowed
    assert take(limiter, limit, who="ada").allowed, "forgotten when dan came"


def test_a_clock_that_goes_back_never_tells_less_than_nothing() -> None:
    clock, limit = Clock(), Limit(3, 60)
    limiter = MemoryLimiter(clock=clock)
    take(limiter, limit)
    clock.microseconds -= 3_600_000_000
    decision = take(limiter, limit)
    assert not decision.allowed
    assert decision.remaining == 0
