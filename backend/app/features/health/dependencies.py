"""The engine, the ledger's state and the metrics, as dependencies of the health routes."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.metrics import Metrics
from app.core.settings import Settings
from app.features.health import service

_bearer = HTTPBearer(scheme_name="Metrics token", description="METRICS_TOKEN, a setting.", auto_error=False)


def _engine(request: Request) -> AsyncEngine:
    engine: AsyncEngine = request.app.state.engine
    return engine


def _recording(request: Request) -> bool:
    recording: bool = request.app.state.studio.ledger.alive
    return recording


Recording = Annotated[bool, Depends(_recording)]
"""Whether the ledger's writer is running."""

Database = Annotated[AsyncEngine, Depends(_engine)]


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


CurrentMetrics = Annotated[Metrics, Depends(_metrics)]


def check_metrics_token(
    request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Raises NotFound where the operator has set no token, and InvalidMetricsToken for any other token."""
    settings: Settings = request.app.state.settings
    service.check_metrics_token(settings.metrics_token, sent=sent.credentials if sent else None)
