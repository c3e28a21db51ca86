"""What every source of limits promises about buckets, wherever it keeps them."""

import pytest
from app.ratelimit import MICROSECONDS, Charge, Limit
from hypothesis import given
from hypothesis import strategies as st
from tests.ratelimit.sources import REPRODUCIBLY, NewSource, Source

LIMITS = st.builds(Limit, st.integers(min_value=1, max_value=50), st.sampled_from((1, 60, 3600, 86_400)))
PAUSES = st.lists(st.integers(min_value=0, max_value=3 * MICROSECONDS), min_size=1, max_size=60)
FULL = 0.0


def test_the_whole_count_can_be_taken_at_once_and_no_more(source: Source) -> None:
    decisions = [source.take_one(Limit(10, 60)) for _ in range(12)]
    assert [decision.allowed for decision in decisions] == [True] * 10 + [False] * 2
    assert [decision.remaining for decision in decisions] == [*range(9, -1, -1), 0, 0]


def test_a_decision_names_its_limit(source: Source) -> None:
    key, account = Charge("key", "first", Limit(3, 60)), Charge("account", "ada", Limit(5, 3600))
    decisions = source.take(key, account).decisions
    assert [(decision.name, decision.limit) for decision in decisions] == [
        ("key", Limit(3, 60)),
        ("account", Limit(5, 3600)),
    ]


def test_a_refused_unit_is_not_taken(source: Source) -> None:
    limit = Limit(1, 60)
    source.take_one(limit)
    waits = [source.take_one(limit).retry_after_seconds for _ in range(5)]
    assert waits == [60] * 5


def test_the_wait_that_is_told_is_exact(source: Source) -> None:
    limit = Limit(7, 60)
    while (decision := source.take_one(limit)).allowed:
        source.clock.microseconds += 1_234_567
    source.clock.wait(decision.retry_after_seconds)
    source.clock.microseconds -= 1
    assert source.take_one(limit).retry_after_seconds == 1 / MICROSECONDS
    source.clock.microseconds += 1
    assert source.take_one(limit).allowed
    assert not source.take_one(limit).allowed


def test_nothing_is_to_be_waited_for_where_a_unit_was_had(source: Source) -> None:
    assert [source.take_one(Limit(3, 60)).retry_after_seconds for _ in range(3)] == [0, 0, 0]


@REPRODUCIBLY
@given(limit=LIMITS, pauses=PAUSES)
def test_in_every_span_no_more_pass_than_burst_and_rate_allow(
    new_source: NewSource, limit: Limit, pauses: list[int]
) -> None:
    source = new_source()
    passed: list[int] = []
    for pause in pauses:
        source.clock.microseconds += pause
        if source.take_one(limit).allowed:
            passed.append(source.clock.microseconds)
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert (last - first + 1 - limit.count) * limit.interval <= end - begin


@REPRODUCIBLY
@given(limits=st.lists(LIMITS, min_size=1, max_size=3), pauses=PAUSES)
def test_waiting_as_told_is_never_refused_again(new_source: NewSource, limits: list[Limit], pauses: list[int]) -> None:
    source = new_source()
    charges = [Charge(f"limit-{place}", "ada", limit) for place, limit in enumerate(limits)]
    for pause in pauses:
        source.clock.microseconds += pause
        taken = source.take(*charges)
        if not taken.allowed:
            source.clock.wait(max(decision.retry_after_seconds for decision in taken.decisions))
            assert source.take(*charges).allowed


@REPRODUCIBLY
@given(limit=LIMITS, pauses=PAUSES)
def test_what_is_told_to_remain_is_there_and_not_more(new_source: NewSource, limit: Limit, pauses: list[int]) -> None:
    source = new_source()
    for pause in pauses:
        source.clock.microseconds += pause
        remaining = source.take_one(limit).remaining
    assert sum(source.take_one(limit).allowed for _ in range(remaining + 1)) == remaining


def test_after_the_reset_the_bucket_is_full_and_no_sooner(source: Source) -> None:
    limit = Limit(7, 60)
    for _ in range(3):
        reset_seconds = source.take_one(limit).reset_seconds
    source.clock.wait(reset_seconds)
    source.clock.microseconds -= 1
    assert source.take_one(limit).remaining == 5
    source.give_back(Charge("key", "ada", limit))
    source.clock.microseconds += 1
    assert source.take_one(limit).remaining == 6


def test_several_limits_are_taken_together(source: Source) -> None:
    key, account = Charge("key", "first", Limit(2, 60)), Charge("account", "ada", Limit(5, 60))
    for left in ([1, 4], [0, 3]):
        taken = source.take(key, account)
        assert taken.allowed
        assert [decision.remaining for decision in taken.decisions] == left


@pytest.mark.parametrize("order", [1, -1])
def test_a_refusal_by_one_limit_takes_nothing_of_the_others(source: Source, order: int) -> None:
    wide, narrow = Charge("account", "ada", Limit(10, 60)), Charge("key", "first", Limit(1, 60))
    charges = [wide, narrow][::order]
    outcomes = [source.take(*charges) for _ in range(5)]
    assert [outcome.allowed for outcome in outcomes] == [True, False, False, False, False]
    of_account, of_key = [[outcome.decisions[::order][place] for outcome in outcomes] for place in (0, 1)]
    assert [(each.allowed, each.remaining, each.reset_seconds) for each in of_account] == [(True, 9, 6)] * 5
    assert [(each.allowed, each.remaining, each.reset_seconds) for each in of_key[1:]] == [(False, 0, 60)] * 4
    assert source.take(wide).decisions[0].remaining == 8


def test_a_limit_that_had_room_says_so_even_where_another_had_none(source: Source) -> None:
    room, none = Charge("account", "ada", Limit(10, 60)), Charge("key", "first", Limit(1, 60))
    source.take(none)
    of_room, of_none = source.take(room, none).decisions
    assert (of_room.allowed, of_room.remaining, of_room.reset_seconds, of_room.retry_after_seconds) == (True, 10, 0, 0)
    assert (of_none.allowed, of_none.remaining, of_none.reset_seconds, of_none.retry_after_seconds) == (
        False,
        0,
        60,
        60,
    )


@pytest.mark.parametrize(
    "other",
    [{"who": "bob"}, {"name": "login"}, {"group": "bob"}, {"name": "account", "who": "key"}],
    ids=["caller", "name", "group", "both"],
)
def test_names_callers_and_groups_have_buckets_of_their_own(source: Source, other: dict[str, str]) -> None:
    limit = Limit(1, 60)
    assert source.take_one(limit).allowed
    assert source.take_one(limit, **other).allowed
    assert not source.take_one(limit).allowed
    assert not source.take_one(limit, **other).allowed


def test_what_is_given_back_can_be_taken_again(source: Source) -> None:
    limit = Limit(2, 60)
    for _ in range(10):
        assert source.take_one(limit).allowed
        source.give_back(Charge("key", "ada", limit))
    assert source.take_one(limit).remaining == 1


def test_every_bucket_named_is_given_back_to_and_no_other(source: Source) -> None:
    names = ("ip", "network", "everybody")
    charges = [Charge(name, "ada", Limit(5, 60)) for name in names]
    source.take(*charges)
    source.give_back(*charges[:2])
    assert [decision.remaining for decision in source.take(*charges).decisions] == [4, 4, 3]


def test_giving_back_what_was_never_taken_gains_nothing(source: Source) -> None:
    limit = Limit(2, 60)
    for _ in range(10):
        source.give_back(Charge("key", "ada", limit))
    assert [source.take_one(limit).allowed for _ in range(3)] == [True, True, False]


def test_giving_back_more_than_was_taken_gains_nothing(source: Source) -> None:
    limit = Limit(2, 60)
    source.take_one(limit)
    for _ in range(10):
        source.give_back(Charge("key", "ada", limit))
    assert [source.take_one(limit).allowed for _ in range(3)] == [True, True, False]


def test_giving_back_gains_nothing_in_another_group(source: Source) -> None:
    limit = Limit(2, 60)
    for group in ("ada", "bob"):
        source.take_one(limit, group=group)
    source.give_back(Charge("key", "ada", limit), group="bob")
    assert source.take_one(limit, group="ada").remaining == 0
    assert source.take_one(limit, group="bob").remaining == 1
