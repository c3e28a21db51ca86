"""One client request's way over the routes of its model: which route is tried, and whether another one follows.

| what happened on a route | next route | breaker |
|---|---|---|
| no connection, TLS failure, no such host | yes | counts |
| key, permission, billing or model refused; the day's quota spent | yes | opens at once |
| 429 or 503 | yes; without another route it is tried again in time | counts |
| 5xx, connection lost after sending, silence | with `may_pay_twice` alone | counts |
| an image that cannot be read or has another shape | the same, and never more than two of them for a request | counts |
| refused for the provider's policy | with `on_refusal = "next"` alone | says nothing |
| the caller's mistake | no | says nothing |
| this process already has as many calls there as it may | yes | says nothing |
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256

from app.catalogue.breaker import Breaker
from app.catalogue.model import Model, Route
from app.catalogue.usability import Usability
from app.core.errors import ApiError
from app.core.logs import logger, logging_with
from app.core.metrics import Metrics
from app.providers import (
    CallBudget,
    CallTally,
    DrawRequest,
    Image,
    Provider,
    ProviderError,
    ProviderTimeout,
    ProviderUnusable,
    Repeats,
    RouteFailure,
    Size,
)

_UNREADABLE_MAX = 2
_COUNTED = {"unreachable", "unusable", "busy", "failed", "unreadable"}


@dataclass(frozen=True)
class OpenRoute:
    """A route whose provider can be called."""

    route: Route
    provider: Provider
    breaker: Breaker
    metrics: Metrics
    usability: Usability = field(default_factory=Usability)

    @property
    def name(self) -> str:
        return self.route.name

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        """What the provider draws. How long that took is counted, whatever became of it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            return await self.provider.draw(request, deadline=deadline)
        finally:
            self.metrics.images.seconds.observe(loop.time() - started, self.name)

    def count(self, failure: RouteFailure | None, *, is_probe: bool) -> None:
        """Has the breaker and the metrics know how a request ended here: with an image, or with this failure."""
        self.metrics.images.tries.add(self.name, failure or "drawn")
        if failure is None:
            self.breaker.succeeded()
            self.usability.succeeded(self.name)
        elif failure in _COUNTED:
            self.breaker.failed(is_unusable=failure == "unusable", is_probe=is_probe)
        elif is_probe:
            self.breaker.left_undecided()


@dataclass(frozen=True)
class Plan:
    """What a request comes to by the catalogue: what is drawn, by which routes, and at which price."""

    model: Model
    size: Size
    quality: str
    """As it is recorded and passed on; `auto` where it has no effect."""
    routes: Sequence[OpenRoute]
    """Those that can draw it, the first choice first."""
    list_price: int
    """For one image, in millionths of the currency."""
    art: int | None = None
    """The version of the stub's art that draws and is kept; None where another provider draws, or nothing is kept."""

    @cached_property
    def is_free(self) -> bool:
        """Whether the stub draws it: a function of what is recorded, at no cost."""
        return self.routes[0].provider.is_deterministic

    @cached_property
    def provider(self) -> str:
        """The provider of the first choice, by name."""
        return self.routes[0].provider.name

    def in_turn(self, spread_by: str) -> "Plan":
        """The plan with its routes by their order, and those of one order by a draw in which each comes first as often
        as its weight says. The same text gives the same draw, so that a repeated request goes the same
        way.
        """
        if len(self.routes) == 1:
            return self
        routes = sorted(self.routes, key=lambda each: (each.route.order, _drawn_place(each.route, spread_by)))
        return replace(self, routes=routes)


def _drawn_place(route: Route, spread_by: str) -> float:
    # Of exponential variables with rates w1, w2, ... the first is the smallest with probability w1 / (w1 + w2 + ...).
    digest = sha256(f"{spread_by} {route.name}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 1) / 2**64
    return -math.log(uniform) / route.weight


@dataclass
class ImageTries:
    """What was tried for one image, for its row: the last route, all calls, and what they may have cost."""

    route: str | None = None
    provider: str | None = None
    calls: int = 0
    paid_calls: int = 0
    cost: int = 0
    """In millionths, of all calls that may have been paid."""
    provider_request_id: str | None = None

    def add(self, route: OpenRoute, plan: Plan, tally: CallTally, provider_request_id: str | None) -> None:
        """Adds the calls to one route."""
        self.route, self.provider = route.name, route.provider.name
        self.calls += tally.calls
        self.paid_calls += tally.paid_calls
        self.cost += tally.paid_calls * (route.route.cost.of(plan.size, plan.quality) or 0)
        self.provider_request_id = provider_request_id or self.provider_request_id


@dataclass
class RoutedRequest:
    """The images of one client request. Each goes over the routes of the plan by itself, all on one count of repeats,
    and before `deadline` (of the event loop's clock).
    """

    plan: Plan
    request: DrawRequest
    account_id: str
    deadline: float
    closed_by: ApiError | None = None
    """The error that each further image would fail with too, whichever route draws it."""
    before_call: Callable[[Route], Awaitable[None]] | None = None
    """Awaited before a provider behind an API is asked. What it raises, an ApiError, ends the image at this route."""
    is_left: Callable[[BaseException], bool] = lambda _: False
    """Whether others decide about the request after this error: then it is not settled here."""
    _budgets: dict[str, CallBudget] = field(default_factory=dict)
    _repeats: Repeats = field(default_factory=Repeats)
    _unreadable: int = 0

    @property
    def may_have_been_paid(self) -> bool:
        return any(budget.may_have_been_paid for budget in self._budgets.values())

    def close(self, error: ApiError) -> None:
        """Lets no further call be sent."""
        self.closed_by = self.closed_by or error
        for budget in self._budgets.values():
            budget.close(error)

    async def draw(self, tries: ImageTries, *, place: int = 0) -> Image:
        """The image at this place of the request, by the first route that draws it; `tries` has what was tried, also
        when this raises.

        Raises what `Provider.draw` raises: the error of the last route, which says whether any call for this image may
        have been paid.
        """
        untried = list(self.plan.routes)
        while True:
            route, is_probe = _next_route(untried)
            request = replace(
                self.request,
                place=place,
                budget=self._budget_on(route),
                tally=CallTally(),
                leave_unpaid_failures=any(map(_is_usable, untried)),
            )
            try:
                with logging_with(route=route.name, provider=route.provider.name):
                    return await self._try(route, request, tries, is_probe=is_probe)
            except ApiError as error:
                if not untried or not self._may_go_on(error, was_paid=request.tally.paid_calls > 0):
                    error.may_have_been_paid |= tries.paid_calls > 0
                    raise

    def _budget_on(self, route: OpenRoute) -> CallBudget:
        budget = self._budgets.get(route.name)
        if budget is None:
            before_call = None if self.before_call is None else partial(self.before_call, route.route)
            budget = CallBudget(
                self.account_id, repeats=self._repeats, closed_by=self.closed_by, before_call=before_call
            )
            self._budgets[route.name] = budget
        return budget

    async def _try(self, route: OpenRoute, request: DrawRequest, tries: ImageTries, *, is_probe: bool) -> Image:
        tally = request.tally
        try:
            image = await route.draw(request, deadline=self._deadline_on(route))
        except ProviderError as error:
            tries.add(route, self.plan, tally, error.provider_request_id)
            self._unreadable += tally.paid_calls if error.failure == "unreadable" else 0
            route.count(error.failure, is_probe=is_probe)
            if isinstance(error, ProviderUnusable):
                route.usability.failed(route.name, error)
            _log_failure(error)
            raise
        except BaseException:
            tries.add(route, self.plan, tally, None)
            if asyncio.get_running_loop().time() >= self.deadline:
                route.count(tally.interruption, is_probe=is_probe)
                _log_failure(ProviderTimeout(failure=tally.interruption))
            elif is_probe:
                route.breaker.left_undecided()
            raise
        tries.add(route, self.plan, tally, image.provider_request_id)
        route.count(None, is_probe=is_probe)
        return image

    def _deadline_on(self, route: OpenRoute) -> float:
        seconds = route.route.timeout_seconds
        return self.deadline if seconds is None else min(self.deadline, asyncio.get_running_loop().time() + seconds)

    def _may_go_on(self, error: ApiError, *, was_paid: bool) -> bool:
        """Whether another route may be tried after this error of one, where a call may have been paid or not."""
        if self.closed_by is not None or not isinstance(error, ProviderError):
            return False
        if error.failure == "request" or asyncio.get_running_loop().time() >= self.deadline:
            return False
        if error.failure == "refused":
            return self.plan.model.refused_goes_on
        return not was_paid or (self.plan.model.may_pay_twice and self._unreadable < _UNREADABLE_MAX)


def _log_failure(error: ProviderError) -> None:
    logger.warning(
        "provider_failed",
        failure=error.failure,
        code=error.code,
        status=error.provider_status,
        provider_request_id=error.provider_request_id,
    )


def _is_usable(route: OpenRoute) -> bool:
    return route.breaker.would_let_through


def _next_route(untried: list[OpenRoute]) -> tuple[OpenRoute, bool]:
    """Takes the first route whose breaker lets the request through, or without one the first: trying what may have
    recovered is better than refusing. Returns it, and whether the request probes it.
    """
    for route in untried:
        if route.breaker.lets_through():
            untried.remove(route)
            return route, route.breaker.state == "probing"
    return untried.pop(0), False
