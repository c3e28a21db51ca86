"""The catalogue with its routes open: what a request comes to, and by whom it is drawn."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import get_args

from app.catalogue.breaker import Breaker
from app.catalogue.choosing import Asked, choose
from app.catalogue.model import STUB_CAPABILITIES, Catalogue, Model, ModelNotFound, Route
from app.catalogue.routing import OpenRoute, Plan
from app.core.blobs import BlobSpace
from app.core.egress import Egress
from app.core.errors import Invalid, UnsupportedParameter
from app.core.fair_queue import FairPool
from app.core.metrics import Metrics
from app.core.pool import BoundedPool
from app.core.security import KeyEnvironment
from app.core.settings import ConfigurationError, Settings
from app.providers import Background, Provider, RouteFailure, Size
from app.providers.gemini import GeminiProvider
from app.providers.openai import OpenAIProvider
from app.providers.stub import StubProvider
from app.providers.stub.editing import ART, EditingProvider
from app.providers.stub.rehearsal import RehearsalProvider
from app.providers.upstream import Bounds, SharedUpstream, Upstream

_PLANS_MAX = 10_000

REFUSALS = (ModelNotFound, Invalid, UnsupportedParameter)
"""What `OpenCatalogue.plan` raises."""


@dataclass(frozen=True)
class OpenCatalogue:
    """The models of a deployment, and the routes that draw them. Test keys see the same, drawn by the stub."""

    catalogue: Catalogue
    routes: Mapping[str, Sequence[OpenRoute]]
    """Of each model by name, by their order."""
    stub: Provider
    _stub_route: OpenRoute
    _stub_edit_route: OpenRoute
    _rehearsal_route: OpenRoute
    _plans: dict[tuple[object, ...], Plan] = field(default_factory=dict)

    @property
    def unusable_routes(self) -> Sequence[str]:
        """The names of the routes that only the operator can mend, as far as this process has seen."""
        return [each.name for routes in self.routes.values() for each in routes if not each.usability.is_usable]

    def plan(
        self,
        model: str | None,
        size: str,
        quality: str,
        background: Background,
        environment: KeyEnvironment,
        *,
        among: Collection[str] | None = None,
        references: int = 0,
        has_mask: bool = False,
        shape: Size | None = None,
    ) -> Plan:
        """What a request comes to that asks for this, as it was sent, with a key of this environment, with so many
        images that go in. With them the size may be `auto`, which comes to the one that is most like `shape`.

        Raises ModelNotFound, also for a model that is not `among` those of the account's plan, Invalid for what no
        route can draw, with a list of what there is, and UnsupportedParameter for a background.
        """
        if among is not None:
            self.catalogue.find(model, among=among)
        asked: tuple[object, ...] = model, size, quality, background, environment
        if references:
            asked = *asked, references, has_mask, shape
        plan = self._plans.get(asked)
        if plan is None:
            plan = self._new_plan(Asked(model, size, quality, background, environment, references, has_mask, shape))
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()  # the stub takes millions of sizes
            self._plans[asked] = plan
        return plan

    def rehearsed(self, plan: Plan) -> Plan:
        """The same plan, whose images fail as their prompt says: see `providers.stub.rehearsal`."""
        return replace(plan, routes=[self._rehearsal_route])

    def _new_plan(self, asked: Asked) -> Plan:
        model = self.catalogue.find(asked.model)
        size, quality, routes = choose(model, self.routes[model.name], asked, self.stub)
        price = (model.prices.of(size, quality) or 0) + model.input_price * asked.references
        if asked.environment == "test":
            routes, price = [self._stub_route], 0
        if asked.references and routes[0].route.is_free:
            return Plan(model, size, quality, [self._stub_edit_route], price, art=ART)
        return Plan(model, size, quality, routes, price)


@asynccontextmanager
async def open_catalogue(
    catalogue: Catalogue,
    settings: Settings,
    *,
    drawing: FairPool,
    decoding: BoundedPool,
    metrics: Metrics,
    blobs: BlobSpace | None = None,
) -> AsyncIterator[OpenCatalogue]:
    """The catalogue, whose connections are closed at the end. The stub draws in the threads of `drawing`. In those of
    `decoding` what other providers send is decoded, and images that they would not take are made smaller, for `blobs`.

    Raises ConfigurationError for a key that cannot be sent.
    """
    stub = StubProvider(drawing)
    editor = EditingProvider(stub, drawing)
    shared = SharedUpstream(Egress.of(settings), blobs=blobs)
    async with AsyncExitStack() as stack:

        async def opened(model: Model, route: Route) -> OpenRoute:
            if route.is_free:
                return _open_route(route, stub, metrics)
            upstream = _open_upstream(route, settings, shared, metrics)
            stack.push_async_callback(upstream.close)
            try:
                provider = _provider_of(route, upstream, decoding)
            except ValueError as error:
                named = "IMAGE_PROVIDER" if settings.models_file is None else f"route {route.name} of {model.name}"
                raise ConfigurationError(f"The key or a header of {named} cannot be used: {error}.") from None
            return _open_route(route, provider, metrics)

        routes = {
            model.name: sorted([await opened(model, each) for each in model.routes], key=lambda each: each.route.order)
            for model in catalogue
        }
        test, edit, rehearsal = (
            _open_route(Route(name=name, provider="stub", capabilities=STUB_CAPABILITIES), provider, metrics)
            for name, provider in (("test", stub), ("edit", editor), ("rehearsal", RehearsalProvider(editor)))
        )
        yield OpenCatalogue(catalogue, routes, stub, test, edit, rehearsal)


def _open_route(route: Route, provider: Provider, metrics: Metrics) -> OpenRoute:
    if not provider.is_deterministic:
        metrics.images.begin(route.name, ("drawn", *get_args(RouteFailure)))
    return OpenRoute(route, provider, Breaker(route.name, on_change=metrics.images.set_route_state), metrics)


def _open_upstream(route: Route, settings: Settings, shared: SharedUpstream, metrics: Metrics) -> Upstream:
    seconds = settings.generation_deadline_seconds
    bounds = Bounds(
        calls_max=route.calls_max,
        account_calls_max=settings.share_of_account(route.calls_max),
        first_byte_seconds=min(seconds, route.timeout_seconds or seconds),
    )
    upstream = Upstream(bounds, shared)
    metrics.images.calls.watch(lambda: upstream.calls, route.name)
    metrics.images.calls_waiting.watch(lambda: upstream.calls_waiting, route.name)
    return upstream


def _provider_of(route: Route, upstream: Upstream, pool: BoundedPool) -> Provider:
    """Raises ValueError for a key or a header that cannot be sent."""
    if route.provider == "gemini":
        if route.key is None:
            raise ValueError("it is missing")
        return GeminiProvider(
            upstream,
            pool,
            api_key=route.key,
            base_url=route.base_url,
            api_version=route.api_version,
            model=route.model,
            frames=route.frames,
        )
    return OpenAIProvider(
        upstream,
        pool,
        api_key=route.key,
        base_url=route.base_url,
        model=route.model,
        sizes=route.sizes,
        headers=route.headers,
        query=route.query,
        capabilities=route.capabilities,
    )
