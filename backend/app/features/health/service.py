"""The token for the process's metrics, and the text of security.txt."""

import secrets
from datetime import datetime, timedelta

from pydantic import SecretStr

from app.core.errors import NotFound, Unauthorized
from app.core.settings import Settings

_EXPIRES_AFTER = timedelta(days=180)  # RFC 9116: less than a year


class InvalidMetricsToken(Unauthorized):
    code, detail = "invalid_metrics_token", "Invalid metrics token"


def check_metrics_token(token: SecretStr | None, *, sent: str | None) -> None:
    """Raises NotFound where METRICS_TOKEN is not set, and InvalidMetricsToken for another or no token."""
    if token is None:
        raise NotFound
    if sent is None or not secrets.compare_digest(sent.encode(), token.get_secret_value().encode()):
        raise InvalidMetricsToken(credential_sent=sent is not None)


def security_txt(settings: Settings, *, now: datetime) -> str:
    """The file security.txt, in the form of RFC 9116. Raises NotFound where SECURITY_CONTACT is not set."""
    if settings.security_contact is None:
        raise NotFound
    expires = (now + _EXPIRES_AFTER).replace(hour=0, minute=0, second=0, microsecond=0)
    fields = [
        f"Contact: {settings.security_contact}",
        f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}",
        "Preferred-Languages: en",
    ]
    if settings.public_url.startswith("https://"):  # the RFC allows no other
        fields.append(f"Canonical: {settings.public_url}/.well-known/security.txt")
    return "".join(f"{field}\n" for field in fields)
