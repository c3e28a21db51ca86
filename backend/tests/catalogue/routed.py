"""A request over routes whose providers are fakes that end each drawing as they are told."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.catalogue.breaker import Breaker
from app.catalogue.model import Model, Route
from app.catalogue.prices import read_prices
from app.catalogue.routing import ImageTries, OpenRoute, Plan, RoutedRequest
from app.core.errors import ApiError
from app.core.metrics import Metrics
from app.providers import DrawRequest, Image, ProviderError, ProviderFailed, RouteFailure, Size
from tests.harness import Clock

SIZE = Size(1024, 1024)
COSTS = (1000, 20, 3)
"""Of the routes in turn, so that a sum says which calls were paid."""


class Ends(NamedTuple):
    """How a provider ends a drawing: with an image or this failure; and its calls, and those that may be paid."""

    failure: RouteFailure | None = None
    calls: int = 1
    paid: int = 0
    request_id: str | None = None


GOOD = Ends(paid=1, request_id="drawn")
FAILED = Ends("failed", paid=1)


class FakeProvider:
    """Ends its drawings in turn as it is told, and hangs where it is told to."""

    is_deterministic = False

    def __init__(self, name: str, ends: Sequence[Ends | ApiError | None], asked: list[str]) -> None:
        """None stands for a drawing that hangs until its deadline. Its name is added to `asked` with each drawing."""
        self.name = name
        self.ends = list(ends)
        self.requests: list[DrawRequest] = []
        self.deadlines: list[float] = []
        self._asked = asked

    def refusal(self, _size: Size | None) -> str | None:
        return None

    async def check(self) -> str:
        return "ok"

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        self._asked.append(self.name)
        self.requests.append(request)
        self.deadlines.append(deadline)
        told = self.ends.pop(0)
        if isinstance(told, ApiError):
            raise told
        ends = told or FAILED
        request.tally.calls += ends.calls
        request.tally.paid_calls += ends.paid
        request.budget.may_have_been_paid |= ends.paid > 0
        if told is None:
            await asyncio.sleep(deadline - asyncio.get_running_loop().time())
        if ends.failure is None:
            return Image(b"", "png", provider_request_id=ends.request_id)
        error = ProviderFailed(failure=ends.failure)
        error.provider_request_id = ends.request_id
        error.may_have_been_paid = ends.paid > 0
        raise error


class Routed:
    """A model whose routes end so, each after the other in order, and the images of one request for it."""

    def __init__(
        self,
        *ends: Sequence[Ends | ApiError | None],
        seconds: float = 60,
        of_routes: Mapping[str, float] | None = None,
        may_pay_twice: bool = False,
        refused_goes_on: bool = False,
    ) -> None:
        self.clock, self.asked = Clock(1000), list[str]()
        self.providers = [FakeProvider(f"provider {number}", each, self.asked) for number, each in enumerate(ends)]
        self.routes = [
            OpenRoute(
                Route(
                    name=each.name,
                    provider="openai",
                    order=number,
                    cost=read_prices(f"0.{COSTS[number]:06}"),
                    timeout_seconds=(of_routes or {}).get(each.name),
                ),
                each,
                Breaker(each.name, clock=self.clock),
                Metrics(),
            )
            for number, each in enumerate(self.providers)
        ]
        model = Model(
            name="picture",
            title="Picture",
            routes=[each.route for each in self.routes],
            may_pay_twice=may_pay_twice,
            refused_goes_on=refused_goes_on,
        )
        self.plan = Plan(model, SIZE, "auto", self.routes, 0)
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.request = RoutedRequest(self.plan, DrawRequest("A cute banana", SIZE), "acc_1", self.deadline)
        self.tries = ImageTries()

    async def draw(self) -> str | None:
        """The failure that an image ends with; None for one that is drawn."""
        try:
            await self.request.draw(self.tries)
        except ProviderError as error:
            return error.failure
        return None

    @property
    def calls(self) -> list[int]:
        """How often each provider was asked to draw."""
        return [len(each.requests) for each in self.providers]
