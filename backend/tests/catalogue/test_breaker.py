"""When a route's breaker opens, for how long, who probes, and when it closes: by a clock that is moved."""

import pytest
from app.catalogue.breaker import Breaker
from tests.harness import Clock


class Watched:
    """A breaker on a clock of its own, and the changes that it has announced."""

    def __init__(self) -> None:
        self.clock = Clock(1000)
        self.changes: list[str] = []
        self.breaker = Breaker("a route", clock=self.clock, on_change=lambda _, state: self.changes.append(state))

    def fail(self, times: int = 1, *, every: float = 0) -> None:
        """So many counted failures, and as much time after each."""
        for _ in range(times):
            self.breaker.failed()
            self.clock.now += every

    def fail_probe(self, *, is_unusable: bool = False) -> None:
        self.breaker.failed(is_probe=True, is_unusable=is_unusable)

    def opens_for(self) -> float:
        """The seconds for which it lets nothing through; then one request probes."""
        seconds = 0.0
        while not self.breaker.lets_through():
            seconds += 0.5
            self.clock.now += 0.5
        return seconds


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_five_failures_open_it_and_four_do_not(watched: Watched) -> None:
    watched.fail(4)
    assert watched.breaker.lets_through()
    watched.fail()
    assert (watched.breaker.state, watched.breaker.would_let_through) == ("open", False)
    assert watched.opens_for() == 10
    assert watched.changes == ["open"]


def test_failures_older_than_thirty_seconds_are_forgotten(watched: Watched) -> None:
    watched.fail(9, every=7.5)
    assert watched.changes == []
    watched.clock.now += 30
    watched.fail(5, every=7.4)
    assert watched.changes == ["open"]


def test_a_success_between_failures_forgets_those_before_it(watched: Watched) -> None:
    watched.fail(4)
    watched.breaker.succeeded()
    watched.fail(4)
    assert (watched.breaker.state, watched.changes) == ("closed", [])


def test_what_only_the_operator_can_mend_opens_it_at_once_for_a_minute(watched: Watched) -> None:
    watched.breaker.failed(is_unusable=True)
    assert watched.opens_for() == 60
    watched.fail_probe(is_unusable=True)
    assert watched.opens_for() == 60, "also after a probe"
    watched.fail_probe()
    for seconds in (10, 20, 40, 80):
        assert watched.opens_for() == seconds
        watched.fail_probe()
    assert watched.opens_for() == 160
    watched.fail_probe(is_unusable=True)
    assert watched.opens_for() == 300, "it is open for no less time than after another failure"


def test_each_failed_probe_opens_it_for_twice_as_long_up_to_five_minutes_and_a_success_forgets_that(
    watched: Watched,
) -> None:
    watched.fail(5)
    spans = []
    for _ in range(7):
        spans.append(watched.opens_for())
        watched.fail_probe()
    assert spans == [10, 20, 40, 80, 160, 300, 300]
    assert watched.opens_for() == 300
    watched.breaker.succeeded()
    watched.fail(4)
    assert watched.breaker.lets_through()
    watched.fail()
    assert watched.opens_for() == 10
    assert watched.changes == ["open", "closed", "open"]


def test_one_request_at_a_time_probes_until_it_has_ended(watched: Watched) -> None:
    watched.fail(5)
    watched.opens_for()
    assert watched.breaker.state == "probing"
    assert not watched.breaker.would_let_through
    assert not watched.breaker.lets_through()
    watched.breaker.left_undecided()
    assert watched.breaker.would_let_through
    assert watched.breaker.lets_through()
    assert not watched.breaker.lets_through()
    watched.breaker.succeeded()
    assert [watched.breaker.lets_through() for _ in range(2)] == [True, True]


def test_a_failure_while_it_is_open_changes_nothing(watched: Watched) -> None:
    watched.fail(5)
    watched.clock.now += 9
    watched.fail(5)
    watched.breaker.failed(is_unusable=True)
    assert watched.opens_for() == 1
    watched.fail_probe()
    assert watched.opens_for() == 20


def test_while_one_request_probes_the_failure_of_another_decides_nothing(watched: Watched) -> None:
    watched.fail(5)
    watched.opens_for()
    watched.fail()
    watched.breaker.failed(is_unusable=True)
    watched.clock.now += 300
    assert watched.breaker.state == "probing"
    assert not watched.breaker.lets_through(), "two probe at a time"
    watched.fail_probe()
    assert watched.opens_for() == 20
