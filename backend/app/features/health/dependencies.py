"""The token of the metrics page, as a dependency of its route."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.features.dependencies import CurrentServices
from app.features.health import service

_bearer = HTTPBearer(scheme_name="Metrics token", description="METRICS_TOKEN, a setting.", auto_error=False)


def check_metrics_token(
    services: CurrentServices, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Raises NotFound where the operator has set no token, and InvalidMetricsToken for any other token."""
    service.check_metrics_token(services.settings.metrics_token, sent=sent.credentials if sent else None)
