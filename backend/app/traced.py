"""The parts whose steps are traced: each does what its original does, within a span. `assembly.py` puts them in the
places of those where traces are on, and else nothing of this is called.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.catalogue.opened import OpenCatalogue
from app.catalogue.routing import OpenRoute
from app.core.tracing import Attributes, Tracing
from app.generations.ledger import Ledger
from app.generations.ledger.queue import PendingRecord, PendingSettlement, Recorded
from app.generations.ledger.writer import Writer
from app.providers import DrawRequest, Image, Provider, ProviderError, Size
from app.ratelimit import Limiter, Slot, Take, TakeResult
from app.storage import PresignedUrl, Stored
from app.storage.health import CheckedStore, MonitoredStore


class TracedLimiter:
    """A Limiter. Its span `admission` is the decision about all limits of a call."""

    def __init__(self, limiter: Limiter, tracing: Tracing) -> None:
        self._limiter = limiter
        self._tracing = tracing

    @property
    def is_degraded(self) -> bool:
        return self._limiter.is_degraded

    async def take(self, takes: Sequence[Take], *, group: str, slot: Slot | None = None) -> TakeResult:
        with self._tracing.span("admission", {"limits": ",".join(take.name for take in takes)}) as span:
            result = await self._limiter.take(takes, group=group, slot=slot)
            span.describe({"allowed": result.allowed})
            return result

    async def give_back(self, takes: Sequence[Take], *, group: str) -> None:
        await self._limiter.give_back(takes, group=group)

    def release(self, slot: Slot, *, group: str) -> None:
        self._limiter.release(slot, group=group)


class TracedLedger(Ledger):
    """A Ledger. Its spans are the waits until a commit."""

    def __init__(self, writer: Writer, *, tracing: Tracing, **options: Any) -> None:
        super().__init__(writer, **options)
        self._tracing = tracing

    async def record(self, record: PendingRecord) -> Recorded:
        with self._tracing.span("ledger.record", {"images": len(record.ids), "model": record.model}):
            return await super().record(record)

    async def settle(self, settlement: PendingSettlement) -> None:
        with self._tracing.span("ledger.settle", {"images": len(settlement.ends)}):
            await super().settle(settlement)


class TracedStore(MonitoredStore):
    """A MonitoredStore. Its spans are its operations."""

    def __init__(self, store: CheckedStore, tracing: Tracing) -> None:
        super().__init__(store)
        self._tracing = tracing

    async def put(self, name: str, content: bytes) -> None:
        with self._tracing.span("store.put", {"bytes": len(content)}):
            await super().put(name, content)

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        with self._tracing.span("store.get", {}):
            return await super().get(name, start=start, end=end)

    async def presigned_url(self, name: str) -> PresignedUrl | None:
        with self._tracing.span("store.presign", {}):
            return await super().presigned_url(name)

    async def delete(self, name: str) -> None:
        with self._tracing.span("store.delete", {}):
            await super().delete(name)


class TracedProvider:
    """A Provider. Its span is one try of a route: nothing of the trace is sent to the provider."""

    def __init__(self, route: str, provider: Provider, tracing: Tracing) -> None:
        self.name = provider.name
        self.is_deterministic = provider.is_deterministic
        self._route = route
        self._provider = provider
        self._tracing = tracing

    def refusal(self, size: Size | None) -> str | None:
        return self._provider.refusal(size)

    async def check(self) -> str:
        return await self._provider.check()

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        of_route: Attributes = {"route": self._route, "provider": self.name}
        with self._tracing.span("provider.draw", {**of_route, "model": request.model, "place": request.place}) as span:
            try:
                image = await self._provider.draw(request, deadline=deadline)
            except ProviderError as error:
                span.describe({"failure": error.failure, "status": error.provider_status})
                raise
            finally:
                span.describe({"calls": request.tally.calls})
            span.describe({"bytes": len(image.content)})
            return image


def traced_catalogue(catalogue: OpenCatalogue, tracing: Tracing) -> OpenCatalogue:
    """The same catalogue, whose routes are traced. What the stub draws is not: it is drawn for viewers."""

    def traced(route: OpenRoute) -> OpenRoute:
        return replace(route, provider=TracedProvider(route.name, route.provider, tracing))

    routes = {model: [traced(route) for route in routes] for model, routes in catalogue.routes.items()}
    return replace(catalogue, routes=routes)
