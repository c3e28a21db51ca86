"""What every limiter guarantees about slots, wherever it keeps them."""

import pytest
from app.ratelimit import Limit, Slot, Take
from tests.ratelimit.sync_limiter import SyncLimiter


def slot(number: int, *, subject: str = "key", slots: int = 2, seconds: int = 30, held: int = 1) -> Slot:
    return Slot(subject, slots, seconds, f"slot-{number}", held)


def test_exactly_the_slots_of_a_subject_can_be_held_at_a_time(limiter: SyncLimiter) -> None:
    assert [limiter.acquires(slot(number)) for number in range(4)] == [True, True, False, False]


def test_releasing_a_slot_frees_that_one_only(limiter: SyncLimiter) -> None:
    for number in range(2):
        limiter.acquires(slot(number))
    limiter.release(slot(0))
    assert [limiter.acquires(slot(number)) for number in range(2, 4)] == [True, False]


def test_a_slot_that_is_not_released_is_held_for_exactly_its_seconds(limiter: SyncLimiter) -> None:
    limiter.acquires(slot(0, seconds=30))
    limiter.clock.advance(10)
    limiter.acquires(slot(1, seconds=30))
    limiter.clock.advance(20)
    limiter.clock.microseconds -= 1
    assert not limiter.acquires(slot(2))
    limiter.clock.microseconds += 1
    assert [limiter.acquires(slot(number)) for number in (2, 3)] == [True, False]


def test_each_slot_is_held_for_its_own_seconds(limiter: SyncLimiter) -> None:
    limiter.acquires(slot(0, seconds=300))
    limiter.acquires(slot(1, seconds=1))
    limiter.clock.advance(30)
    assert [limiter.acquires(slot(number)) for number in (2, 3)] == [True, False]


@pytest.mark.parametrize("not_held", [0, 7], ids=["released before", "never taken"])
def test_releasing_a_slot_that_is_not_held_frees_none(limiter: SyncLimiter, not_held: int) -> None:
    for number in range(2):
        limiter.acquires(slot(number))
    limiter.release(slot(0))
    assert limiter.acquires(slot(2))
    for _ in range(3):
        limiter.release(slot(not_held))
    assert not limiter.acquires(slot(3))


def test_releasing_an_expired_slot_frees_no_other(limiter: SyncLimiter) -> None:
    limiter.acquires(slot(0, slots=1))
    limiter.clock.advance(30)
    assert limiter.acquires(slot(1, slots=1))
    limiter.release(slot(0, slots=1))
    assert not limiter.acquires(slot(2, slots=1))


def test_releasing_a_slot_of_an_unknown_subject_adds_none(limiter: SyncLimiter) -> None:
    limiter.release(slot(0))
    assert [limiter.acquires(slot(number)) for number in range(3)] == [True, True, False]


def test_each_subject_and_group_has_its_own_slots(limiter: SyncLimiter) -> None:
    mine, others = slot(0, slots=1), slot(0, slots=1, subject="other")
    assert limiter.acquires(mine)
    assert limiter.acquires(others)
    assert limiter.acquires(mine, group="bob")
    limiter.release(others)
    limiter.release(mine, group="bob")
    assert not limiter.acquires(slot(1, slots=1))


def test_a_refusal_by_a_rate_limit_takes_no_slot(limiter: SyncLimiter) -> None:
    take = Take("key", "first", Limit(1, 60))
    assert limiter.take(take, slot=slot(0)).allowed
    for number in range(1, 5):
        result = limiter.take(take, slot=slot(number))
        assert (result.allowed, result.no_free_slot) == (False, False)
    assert [limiter.acquires(slot(number)) for number in (5, 6)] == [True, False]


def test_without_a_free_slot_no_unit_is_taken(limiter: SyncLimiter) -> None:
    take = Take("key", "first", Limit(10, 60))
    assert limiter.take(take, slot=slot(0, slots=1)).allowed
    for number in range(1, 5):
        result = limiter.take(take, slot=slot(number, slots=1))
        assert (result.allowed, result.no_free_slot) == (False, True)
        [decision] = result.decisions
        assert (decision.allowed, decision.remaining, decision.reset_seconds) == (True, 9, 6)
    assert limiter.take(take).decisions[0].remaining == 8


def test_the_result_has_both_reasons_if_rate_limit_and_slots_refuse(limiter: SyncLimiter) -> None:
    take = Take("key", "first", Limit(1, 60))
    limiter.take(take, slot=slot(0, slots=1))
    result = limiter.take(take, slot=slot(1, slots=1))
    assert (result.allowed, result.no_free_slot, result.decisions[0].allowed) == (False, True, False)


def test_a_call_without_a_slot_is_allowed_while_all_slots_are_held(limiter: SyncLimiter) -> None:
    limiter.acquires(slot(0, slots=1))
    result = limiter.take(Take("key", "first", Limit(1, 60)))
    assert (result.allowed, result.no_free_slot) == (True, False)


def test_after_slots_were_reduced_one_is_free_once_enough_are_released(limiter: SyncLimiter) -> None:
    for number in range(3):
        assert limiter.acquires(slot(number, slots=3))
    for number in range(3):
        assert not limiter.acquires(slot(7, slots=1))
        limiter.release(slot(number))
    assert limiter.acquires(slot(7, slots=1))


def test_added_slots_are_free_at_once(limiter: SyncLimiter) -> None:
    for number in range(2):
        limiter.acquires(slot(number, slots=2))
    assert [limiter.acquires(slot(number, slots=3)) for number in range(2, 4)] == [True, False]


def test_setting_the_clock_back_frees_no_slot(limiter: SyncLimiter) -> None:
    limiter.acquires(slot(0, slots=1))
    limiter.clock.advance(-60)
    assert not limiter.acquires(slot(1, slots=1))


def test_several_slots_are_taken_together_or_none_of_them(limiter: SyncLimiter) -> None:
    assert limiter.acquires(slot(0, slots=10, held=7))
    assert not limiter.acquires(slot(1, slots=10, held=4))
    assert [limiter.acquires(slot(number, slots=10)) for number in range(2, 6)] == [True, True, True, False]


def test_releasing_several_slots_frees_exactly_those(limiter: SyncLimiter) -> None:
    limiter.acquires(slot(0, slots=10, held=4))
    limiter.acquires(slot(1, slots=10, held=6))
    for _ in range(3):
        limiter.release(slot(0, slots=10, held=4))
    assert not limiter.acquires(slot(2, slots=10, held=5))
    assert limiter.acquires(slot(2, slots=10, held=4))
    assert not limiter.acquires(slot(3, slots=10))


def test_several_slots_that_are_not_released_are_free_after_their_seconds(limiter: SyncLimiter) -> None:
    limiter.acquires(slot(0, slots=10, held=9, seconds=30))
    limiter.clock.advance(29)
    assert not limiter.acquires(slot(1, slots=10, held=2))
    limiter.clock.advance(1)
    assert limiter.acquires(slot(1, slots=10, held=10))


def test_more_slots_than_the_subject_has_are_never_free(limiter: SyncLimiter) -> None:
    assert not limiter.acquires(slot(0, slots=3, held=4))
    assert limiter.acquires(slot(1, slots=3, held=3))
