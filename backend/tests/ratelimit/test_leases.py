"""What every source of limits promises about leases, wherever it keeps them."""

import pytest
from app.ratelimit import Charge, Lease, Limit
from tests.ratelimit.sources import Source


def lease(number: int, *, who: str = "key", places: int = 2, seconds: int = 30) -> Lease:
    return Lease(who, places, seconds, f"lease-{number}")


def test_as_many_leases_as_there_are_places_run_at_a_time(source: Source) -> None:
    assert [source.starts(lease(number)) for number in range(4)] == [True, True, False, False]


def test_a_lease_that_ends_frees_its_place_and_no_other(source: Source) -> None:
    for number in range(2):
        source.starts(lease(number))
    source.end(lease(0))
    assert [source.starts(lease(number)) for number in range(2, 4)] == [True, False]


def test_a_lease_that_nobody_ends_lasts_its_seconds_and_no_longer(source: Source) -> None:
    source.starts(lease(0, seconds=30))
    source.clock.wait(10)
    source.starts(lease(1, seconds=30))
    source.clock.wait(20)
    source.clock.microseconds -= 1
    assert not source.starts(lease(2))
    source.clock.microseconds += 1
    assert [source.starts(lease(number)) for number in (2, 3)] == [True, False]


def test_every_lease_lasts_as_long_as_it_asked_for(source: Source) -> None:
    source.starts(lease(0, seconds=300))
    source.starts(lease(1, seconds=1))
    source.clock.wait(30)
    assert [source.starts(lease(number)) for number in (2, 3)] == [True, False]


@pytest.mark.parametrize("ended", [0, 7], ids=["ended before", "never taken"])
def test_ending_what_does_not_run_changes_nothing(source: Source, ended: int) -> None:
    for number in range(2):
        source.starts(lease(number))
    source.end(lease(0))
    assert source.starts(lease(2))
    for _ in range(3):
        source.end(lease(ended))
    assert not source.starts(lease(3))


def test_a_lease_that_ended_by_itself_can_still_be_ended(source: Source) -> None:
    source.starts(lease(0, places=1))
    source.clock.wait(30)
    assert source.starts(lease(1, places=1))
    source.end(lease(0, places=1))
    assert not source.starts(lease(2, places=1))


def test_a_lease_can_be_ended_where_nobody_ever_had_one(source: Source) -> None:
    source.end(lease(0))
    assert [source.starts(lease(number)) for number in range(3)] == [True, True, False]


def test_callers_and_groups_have_places_of_their_own(source: Source) -> None:
    mine, others = lease(0, places=1), lease(0, places=1, who="other")
    assert source.starts(mine)
    assert source.starts(others)
    assert source.starts(mine, group="bob")
    source.end(others)
    source.end(mine, group="bob")
    assert not source.starts(lease(1, places=1))


def test_a_refusal_by_a_limit_takes_no_lease(source: Source) -> None:
    charge = Charge("key", "first", Limit(1, 60))
    assert source.take(charge, lease=lease(0)).allowed
    for number in range(1, 5):
        taken = source.take(charge, lease=lease(number))
        assert (taken.allowed, taken.crowded) == (False, False)
    assert [source.starts(lease(number)) for number in (5, 6)] == [True, False]


def test_where_it_is_crowded_no_unit_is_taken(source: Source) -> None:
    charge = Charge("key", "first", Limit(10, 60))
    assert source.take(charge, lease=lease(0, places=1)).allowed
    for number in range(1, 5):
        taken = source.take(charge, lease=lease(number, places=1))
        assert (taken.allowed, taken.crowded) == (False, True)
        [decision] = taken.decisions
        assert (decision.allowed, decision.remaining, decision.reset_seconds) == (True, 9, 6)
    assert source.take(charge).decisions[0].remaining == 8


def test_both_reasons_are_told_where_both_refuse(source: Source) -> None:
    charge = Charge("key", "first", Limit(1, 60))
    source.take(charge, lease=lease(0, places=1))
    taken = source.take(charge, lease=lease(1, places=1))
    assert (taken.allowed, taken.crowded, taken.decisions[0].allowed) == (False, True, False)


def test_whoever_asks_for_no_lease_is_never_crowded_out(source: Source) -> None:
    source.starts(lease(0, places=1))
    taken = source.take(Charge("key", "first", Limit(1, 60)))
    assert (taken.allowed, taken.crowded) == (True, False)


def test_fewer_places_are_free_once_as_many_leases_have_ended(source: Source) -> None:
    for number in range(3):
        assert source.starts(lease(number, places=3))
    for number in range(3):
        assert not source.starts(lease(7, places=1))
        source.end(lease(number))
    assert source.starts(lease(7, places=1))


def test_more_places_are_free_at_once(source: Source) -> None:
    for number in range(2):
        source.starts(lease(number, places=2))
    assert [source.starts(lease(number, places=3)) for number in range(2, 4)] == [True, False]


def test_a_clock_that_goes_back_frees_no_place(source: Source) -> None:
    source.starts(lease(0, places=1))
    source.clock.wait(-60)
    assert not source.starts(lease(1, places=1))
