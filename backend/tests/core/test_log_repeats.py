"""A line that repeats: it is written once, and counted."""

from app.core.log_repeats import SECONDS, Repeats
from tests.harness import Clock


def line(event: str, **fields: object) -> dict[str, object]:
    return {"level": "error", "event": event, **fields}


def test_what_repeats_is_counted_and_after_a_minute_one_line_has_the_sum() -> None:
    clock = Clock(now=0)
    repeats = Repeats(clock)
    first = line("one", status=500, exception={"type": "KeyError", "frames": ["here"]})
    written = [repeats.is_new({**first, "request_id": f"req_{number}", "account": number}) for number in range(4)]
    assert written == [True, False, False, False]
    assert repeats.is_new({**first, "status": 502}), "another line"
    clock.now = SECONDS - 1
    assert list(repeats.take_due()) == []
    assert repeats.seconds_left == 1
    clock.now = SECONDS
    total = {**line("one", status=500, exception={"type": "KeyError"}), "repeated": 3, "seconds": SECONDS}
    assert list(repeats.take_due()) == [total]
    assert repeats.seconds_left is None
    assert repeats.is_new(first), "a minute later it is written again"


def test_at_the_end_every_sum_is_due() -> None:
    clock = Clock(now=0)
    repeats = Repeats(clock)
    for event in ("one", "two", "two", "three", "three", "three"):
        repeats.is_new(line(event))
    clock.now = 2
    assert [(each["event"], each["repeated"], each["seconds"]) for each in repeats.take_due(all_of_them=True)] == [
        ("two", 1, 2),
        ("three", 2, 2),
    ]
    assert len(repeats) == 0


def test_what_is_remembered_is_bounded_and_no_count_is_lost() -> None:
    repeats = Repeats(Clock(now=0))
    counted = 0
    for each in range(10_000):
        counted += sum(int(total["repeated"]) for total in repeats.take_due())
        repeats.is_new(line(str(each)))
        repeats.is_new(line(str(each)))
        assert len(repeats) <= 1000
    assert counted + sum(int(total["repeated"]) for total in repeats.take_due(all_of_them=True)) == 10_000
