"""Health over HTTP."""

from fastapi import APIRouter

from app.core.web.openapi import problems
from app.features.health import service
from app.features.health.dependencies import Database, Recording
from app.features.health.schemas import Health, Readiness

router = APIRouter(tags=["Health"])


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=problems())
async def get_health() -> Health:
    """Tell that the process answers. It asks nobody else and is always quick."""
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=problems())
async def get_readiness(engine: Database, recording: Recording) -> Readiness:
    """Tell whether requests can be served: the database answers and its schema is not behind."""
    await service.check_ready(engine, recording=recording)
    return Readiness()
