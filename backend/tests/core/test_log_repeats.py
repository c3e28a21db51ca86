"""An error that repeats: one line each, its stack once, and a count."""

from app.core.log_repeats import SECONDS, Repeats
from tests.harness import Clock


def test_what_repeats_is_counted_and_after_a_minute_it_is_new() -> None:
    clock = Clock(now=0)
    repeats = Repeats(clock)
    assert [repeats.count("one") for _ in range(4)] == [0, 1, 2, 3]
    assert repeats.count("other") == 0
    clock.now = SECONDS
    assert [repeats.count("one") for _ in range(2)] == [0, 1]


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats(Clock(now=0))
    for each in range(10_000):
        repeats.count(each)
    assert len(repeats) <= 1000
