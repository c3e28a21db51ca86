"""What every limiter guarantees about buckets, wherever it keeps them."""

import pytest
from app.ratelimit import MICROSECONDS, Limit, Take
from hypothesis import given
from hypothesis import strategies as st
from tests.ratelimit.sync_limiter import REPRODUCIBLY, NewSyncLimiter, SyncLimiter

LIMITS = st.builds(Limit, st.integers(min_value=1, max_value=50), st.sampled_from((1, 60, 3600, 86_400)))
PAUSES = st.lists(st.integers(min_value=0, max_value=3 * MICROSECONDS), min_size=1, max_size=60)


def test_exactly_the_count_can_be_taken_at_once(limiter: SyncLimiter) -> None:
    decisions = [limiter.take_one(Limit(10, 60)) for _ in range(12)]
    assert [decision.allowed for decision in decisions] == [True] * 10 + [False] * 2
    assert [decision.remaining for decision in decisions] == [*range(9, -1, -1), 0, 0]


def test_each_decision_names_its_limit(limiter: SyncLimiter) -> None:
    key, account = Take("key", "first", Limit(3, 60)), Take("account", "ada", Limit(5, 3600))
    decisions = limiter.take(key, account).decisions
    assert [(decision.name, decision.limit) for decision in decisions] == [
        ("key", Limit(3, 60)),
        ("account", Limit(5, 3600)),
    ]


def test_a_refused_take_does_not_lengthen_the_wait(limiter: SyncLimiter) -> None:
    limit = Limit(1, 60)
    limiter.take_one(limit)
    waits = [limiter.take_one(limit).retry_after_seconds for _ in range(5)]
    assert waits == [60] * 5


def test_retry_after_is_exact_to_the_microsecond(limiter: SyncLimiter) -> None:
    limit = Limit(7, 60)
    while (decision := limiter.take_one(limit)).allowed:
        limiter.clock.microseconds += 1_234_567
    limiter.clock.advance(decision.retry_after_seconds)
    limiter.clock.microseconds -= 1
    assert limiter.take_one(limit).retry_after_seconds == 1 / MICROSECONDS
    limiter.clock.microseconds += 1
    assert limiter.take_one(limit).allowed
    assert not limiter.take_one(limit).allowed


def test_retry_after_is_zero_for_an_allowed_take(limiter: SyncLimiter) -> None:
    assert [limiter.take_one(Limit(3, 60)).retry_after_seconds for _ in range(3)] == [0, 0, 0]


@REPRODUCIBLY
@given(limit=LIMITS, pauses=PAUSES)
def test_no_span_of_time_has_more_allowed_takes_than_burst_and_rate_permit(
    new_sync_limiter: NewSyncLimiter, limit: Limit, pauses: list[int]
) -> None:
    limiter = new_sync_limiter()
    allowed_at: list[int] = []
    for pause in pauses:
        limiter.clock.microseconds += pause
        if limiter.take_one(limit).allowed:
            allowed_at.append(limiter.clock.microseconds)
    for first, begin in enumerate(allowed_at):
        for last, end in enumerate(allowed_at[first:], first):
            assert (last - first + 1 - limit.count) * limit.emission_interval <= end - begin


@REPRODUCIBLY
@given(limits=st.lists(LIMITS, min_size=1, max_size=3), pauses=PAUSES)
def test_a_caller_that_waits_for_retry_after_is_not_refused_again(
    new_sync_limiter: NewSyncLimiter, limits: list[Limit], pauses: list[int]
) -> None:
    limiter = new_sync_limiter()
    takes = [Take(f"limit-{number}", "ada", limit) for number, limit in enumerate(limits)]
    for pause in pauses:
        limiter.clock.microseconds += pause
        result = limiter.take(*takes)
        if not result.allowed:
            limiter.clock.advance(max(decision.retry_after_seconds for decision in result.decisions))
            assert limiter.take(*takes).allowed


@REPRODUCIBLY
@given(limit=LIMITS, pauses=PAUSES)
def test_exactly_the_remaining_units_can_be_taken(
    new_sync_limiter: NewSyncLimiter, limit: Limit, pauses: list[int]
) -> None:
    limiter = new_sync_limiter()
    for pause in pauses:
        limiter.clock.microseconds += pause
        remaining = limiter.take_one(limit).remaining
    assert sum(limiter.take_one(limit).allowed for _ in range(remaining + 1)) == remaining


def test_the_bucket_is_full_after_the_reset_and_not_sooner(limiter: SyncLimiter) -> None:
    limit = Limit(7, 60)
    for _ in range(3):
        reset_seconds = limiter.take_one(limit).reset_seconds
    limiter.clock.advance(reset_seconds)
    limiter.clock.microseconds -= 1
    assert limiter.take_one(limit).remaining == 5
    limiter.give_back(Take("key", "ada", limit))
    limiter.clock.microseconds += 1
    assert limiter.take_one(limit).remaining == 6


def test_one_call_takes_from_several_limits(limiter: SyncLimiter) -> None:
    key, account = Take("key", "first", Limit(2, 60)), Take("account", "ada", Limit(5, 60))
    for remaining in ([1, 4], [0, 3]):
        result = limiter.take(key, account)
        assert result.allowed
        assert [decision.remaining for decision in result.decisions] == remaining


@pytest.mark.parametrize("order", [1, -1])
def test_a_refusal_by_one_limit_takes_nothing_from_the_others(limiter: SyncLimiter, order: int) -> None:
    wide, narrow = Take("account", "ada", Limit(10, 60)), Take("key", "first", Limit(1, 60))
    takes = [wide, narrow][::order]
    results = [limiter.take(*takes) for _ in range(5)]
    assert [result.allowed for result in results] == [True, False, False, False, False]
    of_account, of_key = [[result.decisions[::order][index] for result in results] for index in (0, 1)]
    assert [(each.allowed, each.remaining, each.reset_seconds) for each in of_account] == [(True, 9, 6)] * 5
    assert [(each.allowed, each.remaining, each.reset_seconds) for each in of_key[1:]] == [(False, 0, 60)] * 4
    assert limiter.take(wide).decisions[0].remaining == 8


def test_a_limit_with_units_left_allows_its_take_even_if_another_refuses(limiter: SyncLimiter) -> None:
    ample, spent = Take("account", "ada", Limit(10, 60)), Take("key", "first", Limit(1, 60))
    limiter.take(spent)
    of_ample, of_spent = limiter.take(ample, spent).decisions
    assert (of_ample.allowed, of_ample.remaining, of_ample.reset_seconds, of_ample.retry_after_seconds) == (
        True,
        10,
        0,
        0,
    )
    assert (of_spent.allowed, of_spent.remaining, of_spent.reset_seconds, of_spent.retry_after_seconds) == (
        False,
        0,
        60,
        60,
    )


@pytest.mark.parametrize(
    "other",
    [{"subject": "bob"}, {"name": "login"}, {"group": "bob"}, {"name": "account", "subject": "key"}],
    ids=["subject", "name", "group", "name and subject"],
)
def test_each_name_subject_and_group_has_its_own_bucket(limiter: SyncLimiter, other: dict[str, str]) -> None:
    limit = Limit(1, 60)
    assert limiter.take_one(limit).allowed
    assert limiter.take_one(limit, **other).allowed
    assert not limiter.take_one(limit).allowed
    assert not limiter.take_one(limit, **other).allowed


def test_units_given_back_can_be_taken_again(limiter: SyncLimiter) -> None:
    limit = Limit(2, 60)
    for _ in range(10):
        assert limiter.take_one(limit).allowed
        limiter.give_back(Take("key", "ada", limit))
    assert limiter.take_one(limit).remaining == 1


def test_units_are_given_back_to_the_named_buckets_only(limiter: SyncLimiter) -> None:
    names = ("ip", "network", "everybody")
    takes = [Take(name, "ada", Limit(5, 60)) for name in names]
    limiter.take(*takes)
    limiter.give_back(*takes[:2])
    assert [decision.remaining for decision in limiter.take(*takes).decisions] == [4, 4, 3]


def test_giving_back_units_that_were_never_taken_adds_none(limiter: SyncLimiter) -> None:
    limit = Limit(2, 60)
    for _ in range(10):
        limiter.give_back(Take("key", "ada", limit))
    assert [limiter.take_one(limit).allowed for _ in range(3)] == [True, True, False]


def test_giving_back_more_units_than_were_taken_adds_none(limiter: SyncLimiter) -> None:
    limit = Limit(2, 60)
    limiter.take_one(limit)
    for _ in range(10):
        limiter.give_back(Take("key", "ada", limit))
    assert [limiter.take_one(limit).allowed for _ in range(3)] == [True, True, False]


def test_giving_back_in_one_group_adds_no_unit_in_another(limiter: SyncLimiter) -> None:
    limit = Limit(2, 60)
    for group in ("ada", "bob"):
        limiter.take_one(limit, group=group)
    limiter.give_back(Take("key", "ada", limit), group="bob")
    assert limiter.take_one(limit, group="ada").remaining == 0
    assert limiter.take_one(limit, group="bob").remaining == 1
