"""Health over HTTP."""

from fastapi import APIRouter, Depends, Response

from app.core.errors import NotFound
from app.core.web.openapi import problems
from app.features.health import service
from app.features.health.dependencies import CurrentMetrics, Database, Recording, check_metrics_token
from app.features.health.schemas import Health, Readiness

router = APIRouter(tags=["Health"])


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=problems())
async def get_health() -> Health:
    """Show that the process answers. Uses neither the database nor Redis."""
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=problems())
async def get_readiness(engine: Database, recording: Recording) -> Readiness:
    """Show whether requests can be served: the database answers and its schema is current."""
    await service.check_ready(engine, recording=recording)
    return Readiness()


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(check_metrics_token)],
    responses={
        200: {"content": {"text/plain": {}}, "description": "The counters of all workers."},
        **problems(service.InvalidMetricsToken, NotFound),
    },
)
async def get_metrics(metrics: CurrentMetrics) -> Response:
    """Show the server's counters to Prometheus, which sends METRICS_TOKEN as its bearer token."""
    return Response(metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")
