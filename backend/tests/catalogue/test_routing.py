"""One request over its routes, whose providers do as they are told: which is tried, until when, and at which cost."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from app.catalogue.breaker import Breaker
from app.catalogue.model import Model, Route
from app.catalogue.routing import ImageTries, OpenRoute, Plan, RoutedRequest
from app.core.errors import Unavailable
from app.core.metrics import Metrics
from app.providers import DrawRequest, Image, ProviderFailed, ProviderTimeout
from app.providers.retries import ImageCalls
from app.providers.upstream import Bounds, Upstream
from tests.catalogue.routed import COSTS, FAILED, GOOD, SIZE, Ends, Routed

UNREACHABLE, BUSY, UNUSABLE = Ends("unreachable", calls=0), Ends("busy"), Ends("unusable")
NO_SLOT, WRONG = Ends("no_slot", calls=0), Ends("request")
UNREADABLE, REFUSED = Ends("unreadable", paid=1), Ends("refused", paid=1)
UNPAID_REFUSAL, UNREADABLE_TWICE = Ends("refused"), Ends("unreadable", calls=2, paid=2)


@pytest.mark.parametrize(
    ("ends", "by_default", "may_pay_twice", "refused_goes_on"),
    [
        (UNREACHABLE, True, True, True),
        (UNUSABLE, True, True, True),
        (BUSY, True, True, True),
        (NO_SLOT, True, True, True),
        (FAILED, False, True, False),
        (UNREADABLE, False, True, False),
        (UNREADABLE_TWICE, False, False, False),
        (REFUSED, False, False, True),
        (UNPAID_REFUSAL, False, False, True),
        (WRONG, False, False, False),
    ],
    ids=str,
)
async def test_what_goes_on_to_the_next_route(
    ends: Ends, *, by_default: bool, may_pay_twice: bool, refused_goes_on: bool
) -> None:
    for routed, goes_on in (
        (Routed([ends], [GOOD]), by_default),
        (Routed([ends], [GOOD], may_pay_twice=True), may_pay_twice),
        (Routed([ends], [GOOD], refused_goes_on=True), refused_goes_on),
    ):
        assert await routed.draw() == (None if goes_on else ends.failure)
        assert routed.calls == [1, goes_on]


async def test_a_request_gets_two_unreadable_images_at_most_over_all_routes_and_images() -> None:
    routed = Routed([UNREADABLE] * 2, [UNREADABLE, GOOD], [GOOD] * 2, may_pay_twice=True)
    assert await routed.draw() == "unreadable"
    assert routed.calls == [1, 1, 0]
    assert await routed.draw() == "unreadable", "the second image counts on from the first"
    assert routed.calls == [2, 1, 0]


async def test_the_row_has_all_calls_what_the_paid_ones_cost_and_the_last_id_of_a_provider() -> None:
    routed = Routed(
        [Ends("failed", calls=2, paid=2, request_id="first")],
        [Ends("busy", calls=3, request_id="second")],
        [Ends(paid=1)],
        may_pay_twice=True,
    )
    assert await routed.draw() is None
    tries = ImageTries("provider 2", "provider 2", 6, 3, 2 * COSTS[0] + COSTS[2], "second")
    assert routed.tries == tries


async def test_an_error_says_that_an_earlier_route_may_have_been_paid() -> None:
    routed = Routed([FAILED], [BUSY], may_pay_twice=True)
    with pytest.raises(ProviderFailed) as raised:
        await routed.request.draw(routed.tries)
    assert (raised.value.failure, raised.value.may_have_been_paid) == ("busy", True)
    assert (routed.tries.cost, routed.tries.paid_calls) == (COSTS[0], 1)
    assert routed.request.may_have_been_paid
    routed = Routed([BUSY], [BUSY])
    await routed.draw()
    assert not routed.request.may_have_been_paid


async def test_an_error_of_no_provider_ends_the_request() -> None:
    routed = Routed([Unavailable()], [GOOD])
    with pytest.raises(Unavailable):
        await routed.draw()
    assert routed.calls == [1, 0]


async def test_only_the_last_route_that_can_be_tried_repeats_or_waits_for_what_costs_nothing() -> None:
    routed = Routed([BUSY], [BUSY], [BUSY])
    assert await routed.draw() == "busy"
    assert [each.requests[0].leave_unpaid_failures for each in routed.providers] == [True, True, False]
    routed = Routed([BUSY], [GOOD])
    routed.routes[1].breaker.failed(is_unusable=True)
    assert await routed.draw() is None
    assert not routed.providers[0].requests[0].leave_unpaid_failures, "the other one is no better"


async def test_a_route_gets_its_own_time_within_the_request_s() -> None:
    seconds = {"provider 0": 5, "provider 1": 500}
    routed = Routed([BUSY], [BUSY], [BUSY], of_routes=seconds)
    await routed.draw()
    first, second, third = (each.deadlines[0] for each in routed.providers)
    assert first < second == third == routed.deadline


async def test_after_the_request_s_deadline_no_further_route_is_tried_whatever_may_be_paid_twice() -> None:
    routed = Routed([None], [None], [GOOD], seconds=0.1, of_routes={"provider 0": 0.05}, may_pay_twice=True)
    assert await routed.draw() == "failed"
    assert routed.calls == [1, 1, 0]
    assert routed.tries.cost == COSTS[0] + COSTS[1]


async def test_a_closed_request_tries_no_further_route() -> None:
    routed = Routed([UNREACHABLE], [GOOD])
    routed.request.close(Unavailable())
    assert await routed.draw() == "unreachable"
    assert routed.calls == [1, 0]
    assert routed.providers[0].requests[0].budget.closed_by is routed.request.closed_by
    routed = Routed([GOOD])
    assert await routed.draw() is None
    routed.request.close(Unavailable())
    assert routed.providers[0].requests[0].budget.closed_by is not None, "also a call that is on its way"


async def test_images_of_a_request_share_its_repeats_over_all_routes() -> None:
    routed = Routed([BUSY, BUSY], [GOOD, GOOD])
    assert [await routed.draw() for _ in range(2)] == [None, None]
    budgets = [each.budget for provider in routed.providers for each in provider.requests]
    assert budgets[0] is budgets[1] is not budgets[2] is budgets[3]
    assert len({id(each.repeats) for each in budgets}) == 1


@pytest.mark.parametrize(
    ("ends", "failures"),
    [(BUSY, 5), (UNREACHABLE, 5), (FAILED, 5), (UNREADABLE, 5), (UNUSABLE, 1)]
    + [(each, None) for each in (REFUSED, WRONG, NO_SLOT)],
    ids=str,
)
async def test_what_counts_for_the_breaker(ends: Ends, failures: int | None) -> None:
    routed = Routed([ends] * 6)
    for _ in range(failures - 1 if failures else 6):
        await routed.draw()
        assert routed.routes[0].breaker.would_let_through
    if failures is not None:
        await routed.draw()
        assert not routed.routes[0].breaker.would_let_through
    counted = f'nanobanana_provider_tries_total{{result="{ends.failure}",route="provider 0"}} {failures or 6}.0'
    assert counted in routed.routes[0].metrics.text().decode()


async def test_an_image_forgets_the_failures_before_it() -> None:
    routed = Routed([*[BUSY] * 4, GOOD, *[BUSY] * 4])
    for _ in range(9):
        await routed.draw()
    assert routed.routes[0].breaker.would_let_through


async def test_a_probe_that_says_nothing_about_the_route_lets_another_one_probe_and_one_that_counts_does_not() -> None:
    routed = Routed([UNUSABLE, REFUSED, BUSY, GOOD], [GOOD] * 4)
    await routed.draw()
    routed.clock.now += 60
    assert await routed.draw() == "refused"
    assert routed.routes[0].breaker.would_let_through
    assert await routed.draw() is None
    assert routed.calls == [3, 2]
    assert await routed.draw() is None
    assert routed.calls == [3, 3], "it is open again"


async def test_a_probe_that_is_cancelled_lets_another_one_probe_and_one_that_is_silent_to_the_end_counts() -> None:
    routed = Routed([UNUSABLE, None, None], [GOOD])
    await routed.draw()
    routed.clock.now += 60
    probe = asyncio.create_task(routed.draw())
    await asyncio.sleep(0)
    assert routed.routes[0].breaker.state == "probing"
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert routed.routes[0].breaker.would_let_through
    assert routed.tries.cost == COSTS[1] + COSTS[0], "what was sent may have been paid"
    routed.request.deadline = asyncio.get_running_loop().time() + 0.02
    with pytest.raises(TimeoutError):
        async with asyncio.timeout_at(routed.request.deadline):
            await routed.request.draw(routed.tries)
    assert not routed.routes[0].breaker.would_let_through
    routed.clock.now += 60
    assert routed.routes[0].breaker.would_let_through, "it has failed, and does not probe for ever"


async def test_open_routes_come_last_and_in_their_order() -> None:
    routed = Routed([BUSY], [BUSY], [BUSY])
    for route in routed.routes[:2]:
        route.breaker.failed(is_unusable=True)
    assert await routed.draw() == "busy"
    assert routed.asked == ["provider 2", "provider 0", "provider 1"]


async def test_routes_of_one_order_come_first_by_weight_and_alike_for_one_text() -> None:
    routed = Routed([], [], [])
    orders = {"provider 0": (2, 1), "provider 1": (1, 1), "provider 2": (1, 3)}
    routes = [
        replace(each, route=replace(each.route, order=orders[each.name][0], weight=orders[each.name][1]))
        for each in routed.routes
    ]
    plan = replace(routed.plan, routes=routes)
    turns = [[each.name for each in plan.in_turn(f"text {number}").routes] for number in range(1000)]
    assert {turn[2] for turn in turns} == {"provider 0"}
    first = Counter(turn[0] for turn in turns)
    assert 700 < first["provider 2"] < 800
    assert turns == [[each.name for each in plan.in_turn(f"text {number}").routes] for number in range(1000)]


class Waiting:
    """A provider with one slot, which somebody else holds: an image waits in line, and no byte is sent for it."""

    name, is_deterministic = "waiting", False

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        async def attempt() -> Image:
            await asyncio.Event().wait()
            raise AssertionError

        return await self._upstream.draw(attempt, ImageCalls(request.budget, deadline, tally=request.tally))


async def test_images_that_wait_in_our_own_line_until_their_deadline_say_nothing_about_the_route() -> None:
    breaker, upstream = Breaker("a route"), Upstream(Bounds(calls_max=1))
    provider: Any = Waiting(upstream)
    route = OpenRoute(Route(name="a route", provider="openai"), provider, breaker, Metrics())
    plan = Plan(Model(name="a model", title="A model", routes=[route.route]), SIZE, "auto", [route], 0)
    loop = asyncio.get_running_loop()

    async def draw(account: int, seconds: float) -> None:
        deadline = loop.time() + seconds
        async with asyncio.timeout_at(deadline):
            await RoutedRequest(plan, DrawRequest("A cute banana", SIZE), f"acc_{account}", deadline).draw(ImageTries())

    holding = asyncio.create_task(draw(0, 60))
    await asyncio.sleep(0.01)
    ends = await asyncio.gather(*(draw(each, 0.1) for each in range(1, 8)), return_exceptions=True)
    holding.cancel()
    await upstream.close()
    assert {type(each) for each in ends} <= {TimeoutError, ProviderTimeout}
    assert breaker.state == "closed"
