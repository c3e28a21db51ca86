"""Health over HTTP, and what else the process says of itself."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from app import __version__
from app.core.errors import NotFound
from app.features.dependencies import CurrentServices
from app.features.health import service
from app.features.health.dependencies import check_metrics_token
from app.features.health.schemas import Health, Readiness
from app.readiness import check_ready, find_degraded
from app.web.openapi import problems

router = APIRouter(tags=["Health"])


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=problems())
async def get_health(response: Response) -> Health:
    """Tell that the process answers. It asks nobody else and is always quick."""
    response.headers["X-NanoBanana-Version"] = __version__
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=problems())
async def get_readiness(services: CurrentServices) -> Readiness:
    """Tell whether requests can be served: generations are recorded, the database answers and its schema is not
    behind. `degraded` lists what does not work now without making the process useless.
    """
    await check_ready(services)
    return Readiness(degraded=find_degraded(services))


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(check_metrics_token)],
    responses={
        200: {"content": {"text/plain": {}}, "description": "The counters of all workers."},
        **problems(service.InvalidMetricsToken, NotFound),
    },
)
async def get_metrics(services: CurrentServices) -> Response:
    """Show the server's counters to Prometheus, which sends METRICS_TOKEN as its bearer token."""
    return Response(services.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


@router.head("/.well-known/security.txt", include_in_schema=False)
@router.get("/.well-known/security.txt", include_in_schema=False)
async def get_security_txt(services: CurrentServices) -> PlainTextResponse:
    """Name where vulnerabilities are reported (RFC 9116)."""
    return PlainTextResponse(service.security_txt(services.settings, now=services.now))
