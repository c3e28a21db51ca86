"""The settings of a bucket at any service that speaks the S3 protocol, and its client."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.store import S3Store as Bucket

from app.core.egress import Egress
from app.core.image_settings import LOCAL_HOSTS
from app.core.settings import ConfigurationError

if TYPE_CHECKING:  # it exists for type checkers alone
    from obstore.store import ClientConfig, S3Credential

RETRIES_MAX = 3
"""Of one call."""

_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_DOWNLOAD_SECONDS_MAX = 3600  # of a whole image, by a client that reads slowly; each chunk has the deadline
_IDLE_SECONDS_MAX = 20  # many routers drop a silent connection soon after


@dataclass(frozen=True)
class S3Settings:
    """A bucket and its credentials; without an endpoint, at AWS. Plain HTTP is for this machine, or `allow_http`."""

    bucket: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    endpoint: str | None = None
    region: str = "auto"
    prefix: str = ""
    allow_http: bool = False
    egress: Egress = field(default_factory=Egress)


def open_bucket(settings: S3Settings, *, deadline_seconds: float) -> Bucket:
    """The bucket's client. It sends nothing yet. No connection or silence takes longer than the deadline.

    Raises ConfigurationError, with one sentence, for settings that cannot be used.
    """
    _check_syntax(settings)
    url = endpoint(settings)
    with _without_certificates_of_the_environment():
        return _bucket(settings, url, deadline_seconds=deadline_seconds)


@contextmanager
def _without_certificates_of_the_environment() -> Iterator[None]:
    """The library reads these variables when it makes a client."""
    hidden = {name: os.environ.pop(name) for name in _CERTIFICATE_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _bucket(settings: S3Settings, url: str, *, deadline_seconds: float) -> Bucket:
    return Bucket(
        settings.bucket,
        prefix=settings.prefix or None,
        # All are given, both names of the endpoint too: the library reads what is missing from AWS_ variables.
        config={
            "endpoint": url,
            "aws_endpoint_url_s3": url,
            "region": settings.region,
            "virtual_hosted_style_request": False,
            "disable_bulk_delete": True,
            "skip_signature": False,
            "unsigned_payload": False,
            "s3_express": False,
            "request_payer": False,
        },
        credential_provider=partial(_credential, settings),
        client_options={
            **_egress(settings.egress),
            "allow_http": url.startswith("http:"),
            "connect_timeout": timedelta(seconds=deadline_seconds / 3),
            "read_timeout": timedelta(seconds=deadline_seconds * 0.6),
            "timeout": timedelta(seconds=_DOWNLOAD_SECONDS_MAX),
            "pool_idle_timeout": timedelta(seconds=_IDLE_SECONDS_MAX),
        },
        retry_config={
            "max_retries": RETRIES_MAX,
            "retry_timeout": timedelta(seconds=deadline_seconds * 0.8),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
        },
    )


def _egress(egress: Egress) -> "ClientConfig":
    # Without a proxy of its own the library uses the environment's. This one is used for no name and for no address.
    options: ClientConfig = {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": "*,0.0.0.0/0,::/0"}
    if egress.proxy is not None:
        options = {"proxy_url": egress.proxy.get_secret_value(), "proxy_excludes": ",".join(LOCAL_HOSTS)}
    if egress.certificates is not None:
        options["root_certificate"] = options["proxy_ca_certificate"] = egress.certificates
    return options


def _check_syntax(settings: S3Settings) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", settings.bucket):
        raise ConfigurationError("S3_BUCKET must be a name of 3 to 63 lower-case letters, digits, dots and hyphens")
    if not re.fullmatch(r"([A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)?", settings.prefix):
        raise ConfigurationError("S3_PREFIX must look like pictures/live, without a slash at its ends")
    if not re.fullmatch(r"[a-z0-9-]+", settings.region):
        raise ConfigurationError("S3_REGION must look like auto or eu-west-1")
    if not re.fullmatch(r"[\x21-\x7e]+", settings.access_key_id):
        raise ConfigurationError("S3_ACCESS_KEY_ID must be there, and have no white space in it")
    if not re.fullmatch(r"[\x21-\x7e]+", settings.secret_access_key):
        raise ConfigurationError("S3_SECRET_ACCESS_KEY must be there, and have no white space in it")


def _credential(settings: S3Settings) -> "S3Credential":
    return {
        "access_key_id": settings.access_key_id,
        "secret_access_key": settings.secret_access_key,
        "token": None,
        "expires_at": None,
    }


def endpoint(settings: S3Settings) -> str:
    """The scheme and host of the service. Raises ConfigurationError for an endpoint that cannot be used."""
    if settings.endpoint is None:
        if settings.region == "auto":
            raise ConfigurationError("S3_REGION must be the one of the bucket, or S3_ENDPOINT must be set")
        return f"https://s3.{settings.region}.amazonaws.com"
    parts = urlsplit(settings.endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigurationError("S3_ENDPOINT must look like https://s3.example.com")
    if parts.path not in {"", "/"}:
        raise ConfigurationError("S3_ENDPOINT must end with the host: the name of the bucket belongs into S3_BUCKET")
    if parts.scheme == "http" and not (settings.allow_http or _is_this_machine(parts.hostname)):
        raise ConfigurationError("S3_ENDPOINT must begin with https://, unless it is on this machine")
    return settings.endpoint.rstrip("/")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
