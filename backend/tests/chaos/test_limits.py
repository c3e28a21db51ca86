"""Limits that hold over four workers and many callers, in real time, on a real Redis."""

from collections import Counter

from tests.chaos.callers import calls_of
from tests.chaos.ground import Ground
from tests.chaos.schedule import times
from tests.chaos.verify import excesses, violations

WINDOWS = times(short=5, long=120)


async def test_a_limit_of_ten_attempted_four_hundred_times_at_once_over_all_workers_lets_ten_through(
    ground: Ground,
) -> None:
    for _ in range(times(short=1, long=20)):
        keys = await ground.keys(1, limit="10/hour")
        calls = await calls_of("at_once", keys, ground.fleet, lines=50)
        assert Counter(call.status for call in calls) == {200: 10, 429: 390}
        assert await violations(ground.cluster, calls) == []


async def test_what_one_limit_refuses_takes_nothing_from_another_over_all_workers(ground: Ground) -> None:
    """The account's limit is used up by those whom their key's lets through, to the last picture."""
    narrow, wide = await ground.keys(2, limit="5/hour"), await ground.keys(1)
    await ground.limit_account("20/hour")
    calls = await calls_of("at_once", [*narrow, *wide], ground.fleet, lines=30)
    assert Counter(call.status for call in calls) == {200: 20, 429: 220}
    passed = Counter(call.key_id for call in calls if call.status == 200)
    assert all(passed[key.id] <= 5 for key in narrow)
    assert await violations(ground.cluster, calls) == []


async def test_a_limit_pressed_for_many_windows_is_used_up_and_in_no_span_of_time_exceeded(ground: Ground) -> None:
    [key] = await ground.keys(1, limit="10/second")
    calls = await calls_of("pressing", [key], ground.fleet, lines=2, seconds=WINDOWS)
    assert {call.status for call in calls} == {200, 429}
    passed = [call for call in calls if call.status == 200]
    assert excesses(passed, burst=10, per_second=10) == []
    pressed_seconds = max(call.sent for call in calls) - min(call.sent for call in calls)
    assert len(passed) >= 0.95 * (10 + 10 * pressed_seconds)
    assert await violations(ground.cluster, calls) == []


async def test_whoever_waits_exactly_as_long_as_told_is_not_refused_again(ground: Ground) -> None:
    for _ in range(times(short=1, long=20)):
        keys = [key for limit in ("1/second", "2/second") for key in await ground.keys(50, limit=limit)]
        calls = await calls_of("patient", keys, ground.fleet, lines=25)
        assert sum(call.status == 429 for call in calls) == len(keys) == 100
        afterwards = [call for call in calls if call.prompt.endswith("afterwards")]
        assert [call.status for call in afterwards] == [200] * 100
        assert await violations(ground.cluster, calls) == []
